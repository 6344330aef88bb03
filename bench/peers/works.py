"""The kinds of work that are measured, in terms of a worker's requests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from mvlm.bench.peers.busy import busy_process
from mvlm.bench.peers.child import Child

# A tool that is slower than this allows decodes fewer tokens; its speed is of those.
MOST_DECODE_SECONDS = 20.0
# What no tool takes for one request, the slowest at the longest prompt included.
TIMEOUT_SECONDS = 300.0

_WARM_TOKENS = 8
# Rounds that one reading of a long prompt serves.
_ROUNDS_KEPT = 5
# The scheduler needs some time to settle when a process comes.
_SETTLING_SECONDS = 0.3


@dataclass(frozen=True)
class Measured:
    """One measurement.

    Attributes:
        value: In the scenario's unit.
        beside: The same work under the conditions that it is held against, if there are any.
    """

    value: float
    beside: float | None = None


class Work(Protocol):
    """What is asked of a tool, once before the rounds and once in each."""

    @property
    def sees(self) -> bool:
        """Whether it needs the vision tower."""

    def positions(self, image_tokens: int) -> int:
        """Positions of the KV cache that it takes."""

    def prepare(self, child: Child) -> None:
        """Do what does not count, so that the rounds find warm caches."""

    def measure(self, child: Child) -> Measured:
        """Do the work once."""


def _decode(child: Child, tokens: int) -> float:
    done = child.ask("decode", TIMEOUT_SECONDS, tokens=tokens, most_seconds=MOST_DECODE_SECONDS)
    return float(done["tokens"] / done["seconds"])


def _read(child: Child, positions: int) -> float:
    return float(child.ask("read", TIMEOUT_SECONDS, positions=positions)["seconds"])


@dataclass(frozen=True)
class Decode:
    """Read a prompt, then decode: tokens a second of the decoding."""

    prompt: int
    tokens: int
    sees = False

    def positions(self, image_tokens: int) -> int:
        """Of prompt and answer."""
        return self.prompt + self.tokens

    def prepare(self, child: Child) -> None:
        """Decode a little."""
        _read(child, self.prompt)
        _decode(child, min(self.tokens, _WARM_TOKENS))

    def measure(self, child: Child) -> Measured:
        """Begin anew each time."""
        _read(child, self.prompt)
        return Measured(_decode(child, self.tokens))


@dataclass(frozen=True)
class DecodeOn:
    """Read a long prompt once; each round decodes on from there: tokens a second."""

    prompt: int
    tokens: int
    sees = False

    def positions(self, image_tokens: int) -> int:
        """Of the prompt and some rounds; when they are full, the worker reads the prompt again."""
        return self.prompt + _WARM_TOKENS + _ROUNDS_KEPT * self.tokens

    def prepare(self, child: Child) -> None:
        """Read the prompt and decode a little."""
        _read(child, self.prompt)
        _decode(child, _WARM_TOKENS)

    def measure(self, child: Child) -> Measured:
        """Decode on."""
        return Measured(_decode(child, self.tokens))


@dataclass(frozen=True)
class DecodeBesideBusy(DecodeOn):
    """Decode on, alone and then beside a process that keeps one core busy."""

    def positions(self, image_tokens: int) -> int:
        """As `DecodeOn`, with two decodings a round."""
        return self.prompt + _WARM_TOKENS + 2 * _ROUNDS_KEPT * self.tokens

    def measure(self, child: Child) -> Measured:
        """Decode alone, then beside it."""
        alone = super().measure(child).value
        with busy_process():
            time.sleep(_SETTLING_SECONDS)
            return Measured(super().measure(child).value, beside=alone)


@dataclass(frozen=True)
class Prefill:
    """Read a prompt from an empty cache: tokens a second."""

    prompt: int
    sees = False

    def positions(self, image_tokens: int) -> int:
        """Of the prompt."""
        return self.prompt

    def prepare(self, child: Child) -> None:
        """Read it once."""
        _read(child, self.prompt)

    def measure(self, child: Child) -> Measured:
        """Read it again, from its beginning."""
        return Measured(self.prompt / _read(child, self.prompt))


@dataclass(frozen=True)
class Encode:
    """Run tower and projector on one preprocessed image: milliseconds."""

    sees = True

    def positions(self, image_tokens: int) -> int:
        """None are written; no cache is smaller."""
        return 1

    def prepare(self, child: Child) -> None:
        """Run them once."""
        self.measure(child)

    def measure(self, child: Child) -> Measured:
        """Run them."""
        return Measured(1e3 * float(child.ask("encode", TIMEOUT_SECONDS)["seconds"]))


@dataclass(frozen=True)
class FirstToken:
    """A new image and a question, to the answer's first token: milliseconds."""

    words: int
    sees = True

    def positions(self, image_tokens: int) -> int:
        """Of a start, the image and the question."""
        return 1 + image_tokens + self.words

    def prepare(self, child: Child) -> None:
        """Ask once."""
        self.measure(child)

    def measure(self, child: Child) -> Measured:
        """Ask."""
        return Measured(
            1e3 * float(child.ask("answer", TIMEOUT_SECONDS, words=self.words)["seconds"])
        )


@dataclass(frozen=True)
class Memory:
    """Read a prompt, or an image and a question, and decode: the process's peak RSS in bytes.

    The process is a new one each time, from loading the model on.
    """

    prompt: int
    tokens: int
    sees: bool

    def positions(self, image_tokens: int) -> int:
        """Of what is read and decoded."""
        return 1 + (image_tokens if self.sees else 0) + self.prompt + self.tokens

    def prepare(self, child: Child) -> None:
        """Nothing: the first use counts."""

    def measure(self, child: Child) -> Measured:
        """Use the model, then ask for the peak."""
        if self.sees:
            child.ask("answer", TIMEOUT_SECONDS, words=self.prompt)
        else:
            _read(child, self.prompt)
        _decode(child, self.tokens)
        return Measured(float(child.ask("peak", TIMEOUT_SECONDS)["bytes"]))
