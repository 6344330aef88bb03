"""Decoding on a Snapdragon 888, reckoned from its data sheet: nothing here has run on one.

A token reads every weight once, so its time is at least that of reading them, and at least that of
the loop which multiplies them. Clocks and memory are the data sheet's. What Cortex-X1 and A78 issue
in a cycle is as Arm's software optimization guides are known to have it, which were not at hand;
that an A55 does nothing else for two cycles while it loads 16 bytes is also what ncnn's and ONNX
Runtime's authors found.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvlm.models.config.llama import LlamaConfig
from mvlm.models.family import find_member

# LPDDR5 at 3,200 MHz on 64 bits.
PEAK_BYTES_S = 51.2e9
# MobileVLM, arXiv 2312.16886, table 6: llama.cpp with 4-bit weights, 4 threads.
PUBLISHED_TOKENS_S = 21.54
MODEL = "MobileLLaMA-1.4B"
POSITIONS = 256  # of the KV cache that a token reads

_WEIGHT_BITS = 4.25  # 4, and an int8 scale for 32 of them

# Shares of the peak that the cores may get, of which nothing here is measured. The published speed
# takes the first, so that much can be had; the second is assumed, since refresh, turning pages and
# the other users of a phone's memory leave no reader all of it; the third is a bound.
SHARES = (0.35, 0.6, 0.8)


@dataclass(frozen=True)
class Work:
    """What one iteration of the loop asks of a core.

    Attributes:
        instructions: All of them.
        vector: Those that a vector unit computes.
        loads: 16-byte registers loaded; a pair counts as two.
        weight_bytes: Weights that it multiplies.
    """

    instructions: int
    vector: int
    loads: int
    weight_bytes: int


@dataclass(frozen=True)
class Core:
    """Cores of one kind.

    Attributes:
        name: Arm's.
        count: How many the chip has.
        hertz: Their highest clock.
        width: Instructions that are decoded in a cycle.
        vector: 128-bit operations in a cycle.
        loads: 16-byte loads in a cycle.
        is_in_order: Whether a load holds up the vector unit.
    """

    name: str
    count: int
    hertz: float
    width: float
    vector: float
    loads: float
    is_in_order: bool = False

    def cycles(self, work: Work) -> float:
        """Reckon the cycles of an iteration, everything in the caches and never waiting."""
        vector, loads = work.vector / self.vector, work.loads / self.loads
        busy = vector + loads if self.is_in_order else max(vector, loads)
        return max(busy, work.instructions / self.width)

    def bytes_s(self, work: Work) -> float:
        """Reckon the bytes of weights that one core multiplies in a second."""
        return work.weight_bytes / self.cycles(work) * self.hertz


# sdot is one 128-bit operation, as fast as any other, on all of them. The A55's vector unit has 64
# bits twice, and its loads 64 once.
X1 = Core("Cortex-X1", 1, 2.84e9, width=5, vector=4, loads=2)
A78 = Core("Cortex-A78", 3, 2.42e9, width=4, vector=2, loads=2)
A55 = Core("Cortex-A55", 4, 1.8e9, width=2, vector=1, loads=0.5, is_in_order=True)


def bytes_of_a_token(config: LlamaConfig, positions: int) -> float:
    """Bytes of 4-bit weights, and of the 8-bit KV cache, that one token reads."""
    hidden, head_dim = config.hidden_size, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    layer = attention + 3 * hidden * config.intermediate_size
    weights = config.num_hidden_layers * layer + config.vocab_size * hidden
    cache = config.num_hidden_layers * positions * 2 * kv_heads * (head_dim + 4)
    return weights * _WEIGHT_BITS / 8 + cache


def cores_bytes_s(cores: tuple[Core, ...], work: Work) -> float:
    """Reckon the bytes of weights that cores multiply together, a thread on each.

    Threads take turns, so that none waits for a slower one for long.
    """
    return sum(core.count * core.bytes_s(work) for core in cores)


def tokens_s(cores: tuple[Core, ...], work: Work, share: float) -> float:
    """Reckon decoding: the lesser of what cores multiply and of what memory delivers."""
    config = find_member(MODEL).decoder
    bound = min(cores_bytes_s(cores, work), share * PEAK_BYTES_S)
    return bound / bytes_of_a_token(config, POSITIONS)


def table(work: Work) -> str:
    """Write what is reckoned as Markdown, for the loop's work."""
    lines = [
        "| reckoned, Snapdragon 888 | the cores could multiply | "
        + " | ".join(f"tok/s at {100 * share:.0f} % of 51.2 GB/s" for share in SHARES)
        + " |",
        "|---|--:|" + "--:|" * len(SHARES),
    ]
    for text, cores in (
        ("4 threads: X1, 3 A78", (X1, A78)),
        ("8 threads: and 4 A55", (X1, A78, A55)),
    ):
        speeds = " | ".join(f"{tokens_s(cores, work, share):.0f}" for share in SHARES)
        lines.append(f"| {text} | {cores_bytes_s(cores, work) / 1e9:.0f} GB/s | {speeds} |")
    return "\n".join(lines) + "\n"
