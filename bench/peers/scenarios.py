"""What is measured, and what we want to reach: data only.

The goals are for MobileVLM 1.7B on a CPU and two threads; elsewhere they are only numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mvlm.bench.peers.catalogue import OURS
from mvlm.bench.peers.workloads import (
    ContinuedDecode,
    Decode,
    DecodeBatch,
    DecodeUnderLoad,
    Encode,
    FirstToken,
    Memory,
    Prefill,
    Workload,
)
from mvlm.runtime.errors import UsageError

Unit = Literal["tok/s", "ms", "bytes"]

# Our build with its tower in 16-bit integers, as close to float32 as float16 is; `OURS` has 8 bits.
OURS_16 = f"{OURS}, 16-bit tower"

# Our builds: the schemes of the decoder, and of tower and projector.
BUILDS = {OURS: ("q4a8", "q8a8"), OURS_16: ("q4a8", "q16a16")}


@dataclass(frozen=True)
class Scenario:
    """One thing that is measured of every tool.

    Attributes:
        name: On the command line.
        title: In tables.
        workload: What a tool has to do.
        unit: Of the values; of tokens a second more is better, of the others less.
        threads: How many, where that is not what the user asks for.
        new_process: Whether each round takes a new process.
        ours: Our builds that take part.
        bandwidth: Whether each round measures the memory's read bandwidth, too.
        features: Whether the tower's features are compared.
    """

    name: str
    title: str
    workload: Workload
    unit: Unit = "tok/s"
    threads: int | None = None
    new_process: bool = False
    ours: tuple[str, ...] = (OURS,)
    bandwidth: bool = False
    features: bool = False

    @property
    def sequences(self) -> int:
        """How many sequences share the KV cache."""
        return self.workload.sequences if isinstance(self.workload, DecodeBatch) else 1

    @property
    def more_is_better(self) -> bool:
        """Whether a larger value is a better one."""
        return self.unit == "tok/s"


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("decode", "decode, 128 tokens after 200", Decode(200, 128), bandwidth=True),
        Scenario(
            "decode-1-thread",
            "decode, 128 tokens after 200, 1 thread",
            Decode(200, 128),
            threads=1,
            bandwidth=True,
        ),
        Scenario("decode-at-100", "decode at 100 tokens of context", ContinuedDecode(100, 24)),
        Scenario("decode-at-500", "decode at 500", ContinuedDecode(500, 24)),
        Scenario("decode-at-1000", "decode at 1,000", ContinuedDecode(1000, 24)),
        Scenario("decode-at-1900", "decode at 1,900", ContinuedDecode(1900, 24)),
        Scenario(
            "decode-under-load",
            "decode under load: one busy process",
            DecodeUnderLoad(100, 16),
        ),
        Scenario("decode-4-sequences", "decode, 4 sequences at once", DecodeBatch(200, 32, 4)),
        Scenario("decode-8-sequences", "decode, 8 sequences at once", DecodeBatch(200, 32, 8)),
        Scenario("decode-16-sequences", "decode, 16 sequences at once", DecodeBatch(200, 32, 16)),
        Scenario("prefill-64", "prefill, 64 tokens", Prefill(64)),
        Scenario("prefill-256", "prefill, 256 tokens", Prefill(256)),
        Scenario("prefill-256-1-thread", "prefill, 256 tokens, 1 thread", Prefill(256), threads=1),
        Scenario("prefill-1024", "prefill, 1,024 tokens", Prefill(1024)),
        Scenario(
            "vision",
            "tower and projector, one image",
            Encode(),
            "ms",
            ours=(OURS, OURS_16),
            features=True,
        ),
        Scenario("first-token", "first token, image and 32 tokens", FirstToken(32), "ms"),
        Scenario(
            "memory-text",
            "peak memory, 200 tokens and 128 more",
            Memory(200, 128, has_vision=False),
            "bytes",
            new_process=True,
        ),
        Scenario(
            "memory-image",
            "peak memory, image, 32 tokens and 128 more",
            Memory(32, 128, has_vision=True),
            "bytes",
            new_process=True,
        ),
    )
}


@dataclass(frozen=True)
class Goal:
    """What a ratio or a share of one scenario is to reach.

    Attributes:
        scenario: Of which it is.
        measure: ``faster`` than the peer, ``memory`` of the peer's, ``bandwidth`` share,
            ``features`` cosine to float32's, ``kept`` of the speed of another scenario,
            ``under_load`` of the speed without the load.
        bound: What is to be reached.
        ours: Our build.
        against: The peer, or the other scenario.
    """

    scenario: str
    measure: Literal["faster", "memory", "bandwidth", "features", "kept", "under_load"]
    bound: float
    ours: str = OURS
    against: str | None = None

    @property
    def at_least(self) -> bool:
        """Whether the bound is the least; of memory it is the most."""
        return self.measure != "memory"


GOALS = (
    Goal("decode", "faster", 1.5, against="llama.cpp"),
    Goal("decode", "bandwidth", 0.80),
    Goal("decode-8-sequences", "faster", 2.5, against="llama.cpp"),
    Goal("decode-at-1900", "kept", 0.80, against="decode-at-100"),
    Goal("decode-under-load", "under_load", 0.45),
    Goal("prefill-256", "faster", 2.5, against="llama.cpp"),
    Goal("prefill-1024", "faster", 2.5, against="llama.cpp"),
    Goal("vision", "faster", 2.5, against="llama.cpp"),
    Goal("vision", "faster", 2.5, against="torch"),
    Goal("vision", "features", 0.999),
    Goal("vision", "faster", 1.5, OURS_16, "llama.cpp"),
    Goal("vision", "faster", 1.5, OURS_16, "torch"),
    Goal("first-token", "faster", 2.5, against="llama.cpp"),
    Goal("memory-text", "memory", 0.65, against="llama.cpp"),
    Goal("memory-image", "memory", 0.65, against="llama.cpp"),
)


def find_scenarios(names: Iterable[str], *, has_vision: bool, context: int) -> tuple[Scenario, ...]:
    """Return the scenarios of these names in their own order, or all that the model can do.

    Args:
        names: The names; none for all.
        has_vision: Whether the model has a tower.
        context: Positions that it was trained for.

    Raises:
        UsageError: A name is unknown, or the model cannot do it.
    """
    wanted = tuple(names)
    for name in wanted:
        if name not in SCENARIOS:
            raise UsageError("--scenario", expected=" or ".join(SCENARIOS), found=repr(name))
    chosen = [s for s in SCENARIOS.values() if not wanted or s.name in wanted]
    found = []
    for scenario in chosen:
        reason = _unsupported_reason(scenario, has_vision, context)
        if reason is None:
            found.append(scenario)
        elif wanted:
            raise UsageError(f"--scenario {scenario.name}", found=reason)
    return tuple(found)


def _unsupported_reason(scenario: Scenario, has_vision: bool, context: int) -> str | None:
    if scenario.workload.has_vision and not has_vision:
        return "a model of text only"
    # A scenario with an image has few other positions.
    if scenario.workload.positions(0) // scenario.sequences >= context:
        return f"a model of {context} positions"
    return None
