"""The kinds of work that are measured, in terms of a worker's requests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from mvlm.bench.peers.background_load import background_load
from mvlm.bench.peers.tool_process import ToolProcess

# A tool that is slower than this allows decodes fewer tokens; its speed is of those.
MAX_DECODE_SECONDS = 20.0
# What no tool takes for one request, the slowest at the longest prompt included.
TIMEOUT_SECONDS = 300.0

_WARM_TOKENS = 8
# Rounds that one reading of a long prompt serves.
_ROUNDS_KEPT = 5
# The scheduler needs some time to settle when a process comes.
_SETTLING_SECONDS = 0.3


@dataclass(frozen=True)
class Measurement:
    """One measurement.

    Attributes:
        value: In the scenario's unit.
        baseline: The same without the background load, if the workload has one.
    """

    value: float
    baseline: float | None = None


class Workload(Protocol):
    """What is asked of a tool, once before the rounds and once in each."""

    @property
    def has_vision(self) -> bool:
        """Whether it needs the vision tower."""

    def positions(self, image_tokens: int) -> int:
        """Positions of the KV cache that it takes."""

    def prepare(self, child: ToolProcess) -> None:
        """Do what does not count, so that the rounds find warm caches."""

    def measure(self, child: ToolProcess) -> Measurement:
        """Do the work once."""


def _decode(child: ToolProcess, tokens: int) -> float:
    done = child.ask("decode", TIMEOUT_SECONDS, tokens=tokens, max_seconds=MAX_DECODE_SECONDS)
    return float(done["tokens"] / done["seconds"])


def _prefill(child: ToolProcess, positions: int) -> float:
    return float(child.ask("prefill", TIMEOUT_SECONDS, positions=positions)["seconds"])


@dataclass(frozen=True)
class Decode:
    """Read a prompt, then decode: tokens a second of the decoding."""

    prompt: int
    tokens: int
    has_vision = False

    def positions(self, image_tokens: int) -> int:
        """Of prompt and answer."""
        return self.prompt + self.tokens

    def prepare(self, child: ToolProcess) -> None:
        """Decode a little."""
        _prefill(child, self.prompt)
        _decode(child, min(self.tokens, _WARM_TOKENS))

    def measure(self, child: ToolProcess) -> Measurement:
        """Begin anew each time."""
        _prefill(child, self.prompt)
        return Measurement(_decode(child, self.tokens))


@dataclass(frozen=True)
class ContinuedDecode:
    """Read a long prompt once; each round decodes on from there: tokens a second."""

    prompt: int
    tokens: int
    has_vision = False

    def positions(self, image_tokens: int) -> int:
        """Of the prompt and some rounds; when they are full, the worker reads the prompt again."""
        return self.prompt + _WARM_TOKENS + _ROUNDS_KEPT * self.tokens

    def prepare(self, child: ToolProcess) -> None:
        """Read the prompt and decode a little."""
        _prefill(child, self.prompt)
        _decode(child, _WARM_TOKENS)

    def measure(self, child: ToolProcess) -> Measurement:
        """Decode on."""
        return Measurement(_decode(child, self.tokens))


@dataclass(frozen=True)
class DecodeUnderLoad(ContinuedDecode):
    """Decode on, alone and then while a process keeps one core busy."""

    def positions(self, image_tokens: int) -> int:
        """As `ContinuedDecode`, with two decodings a round."""
        return self.prompt + _WARM_TOKENS + 2 * _ROUNDS_KEPT * self.tokens

    def measure(self, child: ToolProcess) -> Measurement:
        """Decode alone, then under load."""
        alone = super().measure(child).value
        with background_load():
            time.sleep(_SETTLING_SECONDS)
            return Measurement(super().measure(child).value, baseline=alone)


@dataclass(frozen=True)
class DecodeBatch:
    """Read the prompts of some sequences, then decode all at once: tokens of all a second."""

    prompt: int
    tokens: int
    sequences: int
    has_vision = False

    def positions(self, image_tokens: int) -> int:
        """Of all prompts and answers."""
        return self.sequences * (self.prompt + self.tokens)

    def prepare(self, child: ToolProcess) -> None:
        """Do it once."""
        self.measure(child)

    def measure(self, child: ToolProcess) -> Measurement:
        """Begin anew each time."""
        done = child.ask(
            "decode_batch",
            TIMEOUT_SECONDS,
            positions=self.prompt,
            sequences=self.sequences,
            tokens=self.tokens,
        )
        return Measurement(self.sequences * self.tokens / float(done["seconds"]))


@dataclass(frozen=True)
class Prefill:
    """Read a prompt from an empty cache: tokens a second."""

    prompt: int
    has_vision = False

    def positions(self, image_tokens: int) -> int:
        """Of the prompt."""
        return self.prompt

    def prepare(self, child: ToolProcess) -> None:
        """Read it once."""
        _prefill(child, self.prompt)

    def measure(self, child: ToolProcess) -> Measurement:
        """Read it again, from its beginning."""
        return Measurement(self.prompt / _prefill(child, self.prompt))


@dataclass(frozen=True)
class Encode:
    """Run tower and projector on one preprocessed image: milliseconds."""

    has_vision = True

    def positions(self, image_tokens: int) -> int:
        """None are written; no cache is smaller."""
        return 1

    def prepare(self, child: ToolProcess) -> None:
        """Run them once."""
        self.measure(child)

    def measure(self, child: ToolProcess) -> Measurement:
        """Run them."""
        return Measurement(1e3 * float(child.ask("encode_image", TIMEOUT_SECONDS)["seconds"]))


@dataclass(frozen=True)
class FirstToken:
    """A new image and a question, to the answer's first token: milliseconds."""

    words: int
    has_vision = True

    def positions(self, image_tokens: int) -> int:
        """Of a start, the image and the question."""
        return 1 + image_tokens + self.words

    def prepare(self, child: ToolProcess) -> None:
        """Ask once."""
        self.measure(child)

    def measure(self, child: ToolProcess) -> Measurement:
        """Ask."""
        return Measurement(
            1e3 * float(child.ask("first_token", TIMEOUT_SECONDS, words=self.words)["seconds"])
        )


@dataclass(frozen=True)
class Memory:
    """Read a prompt, or an image and a question, and decode: the process's peak RSS in bytes.

    The process is a new one each time, from loading the model on.
    """

    prompt: int
    tokens: int
    has_vision: bool

    def positions(self, image_tokens: int) -> int:
        """Of what is read and decoded."""
        return 1 + (image_tokens if self.has_vision else 0) + self.prompt + self.tokens

    def prepare(self, child: ToolProcess) -> None:
        """Nothing: the first use counts."""

    def measure(self, child: ToolProcess) -> Measurement:
        """Use the model, then ask for the peak."""
        if self.has_vision:
            child.ask("first_token", TIMEOUT_SECONDS, words=self.prompt)
        else:
            _prefill(child, self.prompt)
        _decode(child, self.tokens)
        return Measurement(float(child.ask("peak", TIMEOUT_SECONDS)["bytes"]))
