"""Errors as OpenAI's API reports them: a status, and ``{"error": {...}}``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from mvlm.runtime.engine.asynchronous import EngineStoppedError
from mvlm.runtime.errors import ContextError, ImageError, MvlmError, PromptError, UsageError

_INVALID = "invalid_request_error"


class ErrorFields(BaseModel):
    """What went wrong: one line, the kind, the field, and a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorDocument(BaseModel):
    """The body of an answer that is an error."""

    error: ErrorFields


class ApiError(Exception):
    """A request that cannot be answered.

    Args:
        status: The HTTP status.
        message: One line: what is wrong, and what was expected.
        param: The field that is wrong.
        code: A word for programs, such as ``context_length_exceeded``.
        kind: OpenAI's type of the error.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = _INVALID,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.kind = (
            status,
            message,
            param,
            code,
            kind,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the body."""
        error = ErrorFields(message=self.message, type=self.kind, param=self.param, code=self.code)
        return ErrorDocument(error=error).model_dump()

    def response(self) -> JSONResponse:
        """Return the answer to the request."""
        headers = {"Retry-After": "1"} if self.status in (429, 503) else None
        return JSONResponse(self.to_json(), self.status, headers)


def api_error(error: Exception) -> ApiError:
    """Return what to tell a client of an error; little, where it is no fault of its own."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineStoppedError):
        return ApiError(503, str(error), kind="server_error", code="unavailable")
    if isinstance(error, (ImageError, PromptError, UsageError)):
        is_long = isinstance(error, ContextError)
        return ApiError(400, str(error), code="context_length_exceeded" if is_long else None)
    message = str(error) if isinstance(error, MvlmError) else "the server has failed"
    return ApiError(500, message, kind="server_error")
