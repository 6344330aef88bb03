"""The log: a line for each request, as text or JSON, without what was said.

What comes from clients, such as a path, is written in ASCII with escapes, so that it can neither
begin a line of its own nor command a terminal.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Literal

from mvlm.runtime.server.observability.request_context import RequestContext

LogFormat = Literal["text", "json", "none"]
LOG_FORMATS: tuple[LogFormat, ...] = ("text", "json", "none")
LOG_LEVELS = ("debug", "info", "warning", "error")
_MOST_PATH = 200
_log = logging.getLogger(__name__)


def log_request(context: RequestContext) -> None:
    """Write a request's line, at its end."""
    level = logging.ERROR if (context.status or 0) >= 500 else logging.INFO
    if _log.isEnabledFor(level):
        _log.log(level, "request", extra={"request": _described(context)})


def _described(context: RequestContext) -> dict[str, Any]:
    """Return what is told of a request."""
    told: dict[str, Any] = {
        "request_id": context.id,
        "method": context.method[:16],
        "path": context.path[:_MOST_PATH],
        "status": context.status,
        "total_ms": _milliseconds(context, time.perf_counter()),
    }
    if context.model is not None:
        told["model"] = context.model
    if context.groups:
        told |= {
            "prompt_tokens": context.prompt_tokens,
            "cached_tokens": context.cached_tokens,
            "completion_tokens": context.completion_tokens,
            "finish_reason": ",".join(sorted(set(context.reasons))) or None,
        }
    if context.first_token is not None:
        told["first_token_ms"] = _milliseconds(context, context.first_token)
    if context.is_gone:
        told["client_gone"] = True
    return told


def _milliseconds(context: RequestContext, until: float) -> float:
    return round(1e3 * (until - context.begun), 1)


def configure_logging(form: LogFormat, level: str) -> None:
    """Write the log of this process to standard error.

    Args:
        form: ``text``, ``json``, or ``none``.
        level: The least one that is written, of `LOG_LEVELS`.
    """
    handler: logging.Handler = logging.NullHandler()
    if form != "none":
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # Libraries tell of themselves, not of requests.
    for name in ("asyncio", "httpcore", "PIL", "uvicorn"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _time_of(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, timezone.utc)


class _JsonFormatter(logging.Formatter):
    """A JSON object in a line."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": _time_of(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "request", {}),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document)


class _TextFormatter(logging.Formatter):
    """A line for people."""

    def format(self, record: logging.LogRecord) -> str:
        told = getattr(record, "request", None)
        text = escaped(record.getMessage()) if told is None else _request_text(told)
        line = f"{_time_of(record):%Y-%m-%d %H:%M:%S} {record.levelname.lower()}: {text}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *map(escaped, trace)])
        return line


def escaped(text: str) -> str:
    """Return a text in ASCII without control characters."""
    return text.encode("unicode_escape").decode("ascii")


def _request_text(told: Mapping[str, Any]) -> str:
    words = [
        escaped(told["method"]),
        escaped(told["path"]),
        str(told["status"]),
        f"{told['total_ms']:g} ms",
    ]
    if "model" in told:
        words.append(f"model={escaped(told['model'])}")
    if "prompt_tokens" in told:
        words += [
            f"prompt={told['prompt_tokens']} cached={told['cached_tokens']}",
            f"completion={told['completion_tokens']}",
        ]
    if "first_token_ms" in told:
        words.append(f"first={told['first_token_ms']:g} ms")
    if told.get("finish_reason"):
        words.append(f"finish={told['finish_reason']}")
    if "client_gone" in told:
        words.append("client gone")
    return " ".join([*words, told["request_id"]])
