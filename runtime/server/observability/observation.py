"""The outermost middleware: each request's context, identifier, log line and metrics."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mvlm.runtime.server.observability.metrics import Metrics
from mvlm.runtime.server.observability.request_context import REQUEST, RequestContext, request_id
from mvlm.runtime.server.observability.request_log import log_request

_HEADER = b"x-request-id"


class Observation:
    """ASGI middleware around all others.

    Args:
        app: What it stands around.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(_HEADER, b"")
        context = RequestContext(request_id(given), scope["method"], scope["path"])
        before = REQUEST.set(context)
        try:
            await self._app(scope, _receiving(context, receive), _sending(context, send))
        finally:
            REQUEST.reset(before)
            context.held.close()
            self._metrics.count(context)
            log_request(context)


def _receiving(context: RequestContext, receive: Receive) -> Receive:
    async def watched() -> Message:
        message = await receive()
        if message["type"] == "http.disconnect" and not context.is_answered:
            context.is_gone = True
        return message

    return watched


def _sending(context: RequestContext, send: Send) -> Send:
    async def watched(message: Message) -> None:
        if message["type"] == "http.response.start":
            context.status = message["status"]
            headers = [*message.get("headers", ()), (_HEADER, context.id.encode())]
            message = {**message, "headers": headers}
        elif not message.get("more_body", False):
            context.is_answered = True
        await send(message)

    return watched
