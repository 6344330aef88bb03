"""Serves models to programs, by OpenAI's HTTP API. It needs the extra ``serve``.

=======================  ===========================================================================
module                   what it is about
=======================  ===========================================================================
:mod:`app`               the ASGI application: routes, errors, keys, its life
:mod:`http_server`       uvicorn, as it serves the application
:mod:`connections`       connections with time limits
:mod:`settings`          the server's limits
:mod:`service`           what all requests share: models, limits, keys, metrics
:mod:`endpoint`          a path that is answered
:mod:`routes`            all of them
:mod:`openapi`           ``/openapi.json``, made from them
:mod:`model_pool`        models that are loaded from the start or on demand
:mod:`served_model`      a model, its engine and its processor
:mod:`errors`            errors in OpenAI's JSON
:mod:`bodies`            request bodies: read within limits, and their fields
:mod:`body_room`         how much memory bodies may take together
:mod:`structured`        the form of an answer, as the API spells it
:mod:`prompts`           messages and images to a conversation
:mod:`remote_images`     images by their URLs, from allowed hosts
:mod:`chat_prompt`       a conversation to ids and pixels
:mod:`answering`         tokens to text, with probabilities, until a stop
:mod:`chat`              ``/v1/chat/completions``
:mod:`completions`       ``/v1/completions``
:mod:`response_fields`   the body of ``/v1/responses``
:mod:`responses`         ``/v1/responses``
:mod:`responding`        what these three have in common
:mod:`sse`               server-sent events
:mod:`tokens`            ``/tokenize`` and ``/detokenize``
:mod:`model_list`        ``/v1/models``
:mod:`status`            ``/health``, ``/ready`` and ``/metrics``
:mod:`metrics`           what is measured of the server
:mod:`model_metrics`     what is measured of a model's answers
:mod:`request_context`   what belongs to one request
:mod:`observation`       the middleware that counts and logs each request
:mod:`request_log`       the log, as text or JSON
:mod:`page_routes`       the web page at ``/``
=======================  ===========================================================================
"""
