"""Request bodies: read within limits, and their fields.

A field that OpenAI's API does not know is refused, as its server does. Fields that change nothing
here are passed over; those that would change the answer, and are not understood, are refused by
name unless they hold their default.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.server.api.structured import FormFields
from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.server.http.body_room import BodyPart
from mvlm.runtime.server.observability.request_context import REQUEST
from mvlm.runtime.server.service import Service
from mvlm.runtime.server.settings import ServerSettings

_MOST_TOKENS = 1 << 20
_MOST_SHOWN = 3

# Of a request that was not told how long an answer may be.
DEFAULT_TOKENS = 512
Count = Annotated[int, Field(ge=1, le=_MOST_TOKENS)]


class StreamOptions(BaseModel):
    """How to stream."""

    model_config = ConfigDict(extra="ignore", strict=True)
    include_usage: bool = False


class SamplingFields(FormFields):
    """What both kinds of completions take.

    `top_k`, `repetition_penalty` and `ignore_eos` are not OpenAI's, and are spelled as vLLM does.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    # Fields that are understood at one value alone: any other would change the answer.
    ONLY: ClassVar[dict[str, tuple[Any, ...]]] = {}

    model: str
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    user: str | None = None

    def check(self) -> None:
        """Refuse fields that are not understood, by name.

        Raises:
            ApiError: There is one.
        """
        refuse_unsupported(self, self.ONLY)
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options needs stream", param="stream_options")

    @property
    def answers(self) -> int:
        """How many answers are asked for."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """Whether the tokens that were used are told."""
        if not self.stream:
            return True
        return self.stream_options is not None and self.stream_options.include_usage

    def params(self, max_tokens: int) -> SamplingParams:
        """Return how to sample.

        Raises:
            UsageError: A value is out of its range.
        """
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return SamplingParams(
            # As OpenAI's, where a request says nothing.
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            repetition_penalty=self.repetition_penalty or 1.0,
            seed=None if self.seed is None else self.seed % (1 << 63),
            max_tokens=max_tokens,
            stop=stop,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=tuple(_biases(self.logit_bias or {})),
        )


class ChatFields(SamplingFields):
    """The body of ``/v1/chat/completions``."""

    ONLY: ClassVar = {
        "tools": (None, []),
        "tool_choice": (None, "none", "auto"),
        "functions": (None, []),
        "function_call": (None, "none", "auto"),
        "audio": (None,),
        "modalities": (None, ["text"]),
        "prediction": (None,),
        "web_search_options": (None,),
    }

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    audio: Any = None
    modalities: list[str] | None = None
    prediction: Any = None
    web_search_options: Any = None
    # These change nothing here.
    parallel_tool_calls: bool | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None


class CompletionFields(SamplingFields):
    """The body of ``/v1/completions``."""

    ONLY: ClassVar = {"suffix": (None, ""), "best_of": (None, 1)}

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    suffix: str | None = None
    best_of: int | None = None


Fields = TypeVar("Fields", bound=BaseModel)


async def read_fields(request: Request, kind: type[Fields], service: Service) -> Fields:
    """Read and check a request's body.

    Raises:
        ApiError: It is too long, too slow, no JSON, or a field is wrong; or there are too many.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise ApiError(415, "content-type: expected application/json")
    part = REQUEST.get().held.enter_context(service.bodies.part())
    document = _parse(await _read(request, service.settings, part))
    if not isinstance(document, dict):
        raise ApiError(400, "the body: expected a JSON object")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise _wrong_fields(error) from None


async def _read(request: Request, settings: ServerSettings, room: BodyPart) -> bytes:
    """Read the body; what is declared too long is refused before it comes."""
    most = settings.max_body_bytes
    too_long = ApiError(413, f"the body: expected at most {most} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most:
        raise too_long
    parts, total = list[bytes](), 0

    async def read() -> None:
        nonlocal total
        async for part in request.stream():
            total += len(part)
            if total > most:
                raise too_long
            room.take(len(part))
            parts.append(part)

    try:
        await asyncio.wait_for(read(), settings.body_seconds)
    except asyncio.TimeoutError:
        raise ApiError(408, f"the body: expected within {settings.body_seconds:g} s") from None
    except ClientDisconnect:
        raise ApiError(400, "the client has gone") from None
    return b"".join(parts)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_no_number)
    except RecursionError:
        raise ApiError(400, "the body is nested too deep") from None
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {error}"[:300]) from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _wrong_fields(error: ValidationError) -> ApiError:
    """Name the fields that are wrong, the first ones of many."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    texts, first = [], ""
    for fault in faults[:_MOST_SHOWN]:
        name = ".".join(map(str, fault["loc"]))[:80]
        first = first or name
        is_unknown = fault["type"] == "extra_forbidden"
        texts.append(f"{name}: {'no such field' if is_unknown else fault['msg']}")
    return ApiError(400, "; ".join(texts), param=first)


def _biases(given: dict[str, float]) -> Iterator[tuple[int, float]]:
    for name, bias in given.items():
        if not (name.isascii() and name.isdecimal() and len(name) < 10):
            raise ApiError(400, f"logit_bias: {name!r:.40} is no token id", param="logit_bias")
        yield int(name), bias


def refuse_unsupported(fields: BaseModel, only: Mapping[str, Sequence[Any]]) -> None:
    """Refuse fields whose values are none of those that are understood.

    Raises:
        ApiError: There is one.
    """
    for name, values in only.items():
        if (value := getattr(fields, name)) not in values:
            raise ApiError(400, f"{name}: {value!r:.60} is not supported here", param=name)


def tokens_asked(*limits: int | None, default: int = DEFAULT_TOKENS) -> int:
    """Return how long an answer may be: the first limit that is given."""
    return next((limit for limit in limits if limit is not None), default)
