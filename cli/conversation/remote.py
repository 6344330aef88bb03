"""A conversation with a server that speaks OpenAI's API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from mvlm.cli.conversation.exchange import AttachedImage, Exchange, last_of
from mvlm.cli.conversation.server_connection import Cancelled, ServerConnection, ServerError
from mvlm.cli.shared.images import image_bytes, image_name
from mvlm.runtime.errors import PromptError, UsageError
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.structured_output import Constraint

_MOST_CHARACTERS = 1 << 24  # of an answer
_MOST_FILE_BYTES = 1 << 28
_FORMAT = "mvlm conversation with a server"


class RemoteReply:
    """An answer of a server.

    Args:
        connection: The server's.
        body: The request.
        exchanges: Take the exchange once the answer is complete.
        asked: The exchange, without its answer.
        replace_last: Whether it takes the last one's place.
    """

    dropped_turns = 0

    def __init__(
        self,
        connection: ServerConnection,
        body: dict[str, Any],
        exchanges: list[Exchange],
        asked: Exchange,
        *,
        replace_last: bool,
    ) -> None:
        self._connection, self._body = connection, body
        self._exchanges, self._asked, self._replace_last = exchanges, asked, replace_last
        self._text = list[str]()
        self._usage: dict[str, Any] = {}
        self._begin = self._first = self._end = 0.0
        self.finish_reason = ""

    def __iter__(self) -> Iterator[str]:
        self._begin = time.perf_counter()
        try:
            yield from self._parts()
        except Cancelled:
            self.finish_reason = "cancelled"
        if not self.finish_reason:
            raise ServerError("the server broke off before the answer's end")
        self._end = time.perf_counter()
        if self._replace_last:
            self._exchanges.pop()
        answered = Exchange(self._asked.question, self._asked.images, self._whole)
        self._exchanges.append(answered)

    @property
    def _whole(self) -> str:
        return "".join(self._text).strip()

    def _parts(self) -> Iterator[str]:
        length = 0
        for event in self._connection.events("/chat/completions", self._body):
            if isinstance(usage := event.get("usage"), dict):
                self._usage = usage
            text, reason = _choice(event)
            self.finish_reason = reason or self.finish_reason
            length += len(text)
            if length > _MOST_CHARACTERS:
                raise ServerError("the server's answer has no end")
            if text:
                self._first = self._first or time.perf_counter()
                self._text.append(text)
                yield text

    def cancel(self) -> None:
        """Close the stream, which ends the answer at the server."""
        self._connection.cancel()

    def speeds(self) -> list[tuple[str, str]]:
        """Name and write what this side can measure."""
        tokens, decoding = self._usage.get("completion_tokens"), self._end - self._first
        found = [("first token", f"{1e3 * (self._first - self._begin):.0f} ms")] * bool(self._first)
        if isinstance(tokens, int) and tokens > 1 and decoding > 0:
            found.append(("decode", f"{(tokens - 1) / decoding:,.1f} tok/s"))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the answer as plain JSON values."""
        usage = {name: self._usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
        return {"text": self._whole, "finish_reason": self.finish_reason, "usage": usage}


class RemoteConversation:
    """See :class:`~mvlm.cli.conversation.conversation.Conversation`.

    Args:
        connection: The server's.
        model: The model's name; the server's only one if None.

    Raises:
        MvlmError: The server cannot be reached, or has several models.
    """

    def __init__(self, connection: ServerConnection, model: str | None = None) -> None:
        self._connection = connection
        self._model = model or _only_model(connection)
        self.exchanges: list[Exchange] = []
        self.system: str | None = None

    @property
    def title(self) -> str:
        """The model and the server."""
        return f"{self._model} at {self._connection.url}"

    def set_system(self, text: str | None) -> None:
        """Set the system message; None for the server's own."""
        self.system = text

    def attach(self, source: Path | bytes) -> AttachedImage:
        """Read an image, to be sent with the next question.

        Raises:
            ImageError: It is no image that can be read.
        """
        from mvlm.runtime.image import load_image

        load_image(source)
        return AttachedImage(image_name(source), image_bytes(source))

    def ask(
        self,
        question: str,
        images: Sequence[AttachedImage],
        params: SamplingParams,
        *,
        replace_last: bool = False,
        constraint: Constraint | None = None,
    ) -> RemoteReply:
        """Ask the server, with the conversation so far.

        Raises:
            PromptError: The question is empty, or there is no turn to replace.
        """
        if not question.strip():
            raise PromptError("the prompt is empty", expected="a question", found=repr(question))
        if replace_last:
            last_of(self.exchanges)
        before = self.exchanges[:-1] if replace_last else self.exchanges
        asked = Exchange(question, tuple(images))
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        for exchange in (*before, asked):
            messages += exchange.messages()
        body = {"model": self._model, "messages": messages} | _fields(params) | _form(constraint)
        return RemoteReply(self._connection, body, self.exchanges, asked, replace_last=replace_last)

    def reading_ahead(self, images: Sequence[AttachedImage]) -> AbstractContextManager[object]:
        """Do nothing: the server has other work."""
        return nullcontext()

    def undo(self) -> Exchange:
        """Take back the last turn.

        Raises:
            PromptError: There is none.
        """
        last_of(self.exchanges)
        return self.exchanges.pop()

    def reset(self) -> None:
        """Begin a new conversation."""
        self.exchanges.clear()

    def save(self, path: Path) -> None:
        """Write the conversation as JSON.

        Raises:
            UsageError: The file cannot be written.
        """
        from mvlm.runtime.atomic_write import atomic_write

        turns = [
            {
                "question": exchange.question,
                "images": [{"name": image.name, "url": image.url} for image in exchange.images],
                "answer": exchange.answer,
            }
            for exchange in self.exchanges
        ]
        document = {"format": _FORMAT, "system": self.system, "turns": turns}
        try:
            with atomic_write(path) as file:
                file.write(json.dumps(document).encode())
        except OSError as error:
            raise UsageError(f"cannot write {path}", found=error.strerror) from None

    def load(self, path: Path) -> None:
        """Go on with a conversation that :meth:`save` wrote.

        Raises:
            UsageError: It cannot be read, or is none.
        """
        self.exchanges, self.system = _read_conversation(path)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _only_model(connection: ServerConnection) -> str:
    document = connection.get("/models")
    data = document.get("data")
    names = [each.get("id") for each in data] if isinstance(data, list) else []
    named = [name for name in names if isinstance(name, str)]
    if len(named) != 1:
        raise UsageError(
            "--model", expected="the name of a model", found=f"{', '.join(named)[:300] or 'none'}"
        )
    return named[0]


def _fields(params: SamplingParams) -> dict[str, Any]:
    """Return the fields of a request; those that OpenAI's API lacks only where they matter."""
    fields: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": params.temperature,
        "max_tokens": params.max_tokens,
    }
    optional: dict[str, tuple[Any, Any]] = {
        "top_p": (params.top_p, 1.0),
        "top_k": (params.top_k, 0),
        "repetition_penalty": (params.repetition_penalty, 1.0),
        "seed": (params.seed, None),
        "stop": (list(params.stop), []),
    }
    return fields | {name: value for name, (value, default) in optional.items() if value != default}


def _form(constraint: Constraint | None) -> dict[str, Any]:
    """Return the fields that ask for a form: OpenAI's for a schema, vLLM's for the others."""
    if constraint is None:
        return {}
    if constraint.kind == "json_schema":
        named = {"name": "answer", "schema": json.loads(constraint.source), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    is_choice = constraint.kind == "choice"
    value = json.loads(constraint.source) if is_choice else constraint.source
    return {"structured_outputs": {constraint.kind: value}}


def _choice(event: dict[str, Any]) -> tuple[str, str]:
    """Return an event's text, and the reason why the answer ended; empty where there is none."""
    try:
        choice = event["choices"][0] if event.get("choices") else {"delta": {}}
        text = choice["delta"].get("content") or ""
        reason = choice.get("finish_reason") or ""
    except (KeyError, IndexError, TypeError, AttributeError):
        text = reason = None
    if not isinstance(text, str) or not isinstance(reason, str):
        raise ServerError("the server's answer is not understood", found=f"{event!r:.60}")
    return text, reason


def _read_conversation(path: Path) -> tuple[list[Exchange], str | None]:
    import base64

    from mvlm.runtime.artifact.json_object import parse_json_object, read_bounded
    from mvlm.runtime.errors import ArtifactError

    try:
        document = parse_json_object(read_bounded(path, _MOST_FILE_BYTES), str(path))
        if document.get("format", str) != _FORMAT:
            raise ValueError
        exchanges = []
        for turn in document.children("turns"):
            images = tuple(
                AttachedImage(
                    image.get("name", str),
                    base64.b64decode(image.get("url", str).partition(",")[2], validate=True),
                )
                for image in turn.children("images")
            )
            exchanges.append(Exchange(turn.get("question", str), images, turn.get("answer", str)))
        return exchanges, document.optional("system", str)
    except (ArtifactError, ValueError):
        raise UsageError(
            f"{path} is no conversation with a server", expected="a file that /save wrote then"
        ) from None
