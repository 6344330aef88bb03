"""Serves models to programs, by OpenAI's HTTP API, and to people, by a page. It needs ``serve``.

====================  ==============================================================================
module                what it is about
====================  ==============================================================================
:mod:`app`            the ASGI application: routes, errors, keys, its life
:mod:`api`            what is answered: paths, requests, answers
:mod:`page`           the page's files, and :mod:`page_routes`, which serves them
:mod:`service`        what all requests share: models, limits, keys, metrics
:mod:`models`         models that are loaded from the start or on demand
:mod:`http`           uvicorn, connections and bodies with limits, server-sent events
:mod:`observability`  metrics, the log, what belongs to one request
:mod:`remote_images`  images by their URLs, from allowed hosts
:mod:`settings`       the server's limits
:mod:`errors`         errors in OpenAI's JSON
====================  ==============================================================================
"""
