"""The body of ``/v1/responses``, and its input as messages of the chat API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.server.api.bodies import Count, refuse_unsupported, tokens_asked
from mvlm.runtime.server.api.structured import TextFormat
from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.structured_output import Constraint

_TEXT_PARTS = ("input_text", "output_text")


class TextOptions(BaseModel):
    """How the text of an answer is written; `verbosity` changes nothing here."""

    model_config = ConfigDict(extra="forbid", strict=True)
    format: TextFormat | None = None
    verbosity: str | None = None


class ResponseFields(BaseModel):
    """The body of ``/v1/responses``."""

    model_config = ConfigDict(extra="forbid", strict=True)
    # Nothing is kept, so that no answer can follow an earlier one by its name alone.
    ONLY: ClassVar[dict[str, tuple[Any, ...]]] = {
        "previous_response_id": (None,),
        "conversation": (None,),
        "prompt": (None,),
        "background": (None, False),
        "include": (None, []),
        "tools": (None, []),
        "tool_choice": (None, "none", "auto"),
        "top_logprobs": (None, 0),
        "truncation": (None, "disabled"),
    }

    model: str
    input: str | Annotated[list[dict[str, Any]], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    text: TextOptions | None = None
    stream: bool | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = None
    include: list[str] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    top_logprobs: int | None = None
    truncation: str | None = None
    # These change nothing here.
    store: bool | None = None
    stream_options: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    reasoning: dict[str, Any] | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    def check(self) -> None:
        """Refuse fields that are not understood, by name.

        Raises:
            ApiError: There is one.
        """
        refuse_unsupported(self, self.ONLY)

    def constraint(self) -> Constraint | None:
        """Return the form of the answer; None for any.

        Raises:
            ApiError: It is none that is understood.
        """
        form = None if self.text is None else self.text.format
        return None if form is None else form.constraint()

    @property
    def max_tokens(self) -> int:
        """How long the answer may be."""
        return tokens_asked(self.max_output_tokens)

    def params(self) -> SamplingParams:
        """Return how to sample.

        Raises:
            UsageError: A value is out of its range.
        """
        return SamplingParams(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            max_tokens=self.max_tokens,
        )

    def messages(self) -> list[dict[str, Any]]:
        """Return the instructions and the input as the chat API has them.

        Raises:
            ApiError: An item is no message.
        """
        opening = [] if self.instructions is None else [_said("system", self.instructions)]
        if isinstance(self.input, str):
            return [*opening, _said("user", self.input)]
        return [*opening, *(_message(at, item) for at, item in enumerate(self.input))]


def _said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def _message(number: int, item: dict[str, Any]) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind != "message":
        where = f"input.{number}"
        raise ApiError(400, f"{where}: type {kind!r:.40}: expected message", param=where)
    content = item.get("content")
    if isinstance(content, list):
        content = list(_parts(content))
    return {"role": item.get("role"), "content": content}


def _parts(content: list[Any]) -> Iterator[Any]:
    """Spell parts as the chat API does; it refuses those that are none of these."""
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _TEXT_PARTS:
            yield {"type": "text", "text": part.get("text")}
        elif kind == "input_image":
            yield {"type": "image_url", "image_url": {"url": part.get("image_url")}}
        else:
            yield part
