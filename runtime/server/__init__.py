"""Serves a model to programs, by OpenAI's HTTP API. It needs the extra ``serve``.

====================  ==============================================================================
module                what it is about
====================  ==============================================================================
:mod:`app`            the ASGI application: routes, errors, keys, its life
:mod:`settings`       the server's limits
:mod:`served_model`   a model, its engine, tokenizer and chat template
:mod:`errors`         errors in OpenAI's JSON
:mod:`bodies`         request bodies: read within limits, and their fields
:mod:`structured`     the form of an answer, as the API spells it
:mod:`prompts`        messages and images to a prompt
:mod:`answering`      tokens to text, with probabilities, until a stop
:mod:`chat`           ``/v1/chat/completions``
:mod:`completions`    ``/v1/completions``
:mod:`responding`     what both have in common
:mod:`sse`            server-sent events
:mod:`page_routes`    the web page at ``/``
====================  ==============================================================================
"""
