"""A roofline estimate of decoding on a device, from its description: nothing here has run on one.

A token reads every weight once, so its time is at least that of reading them, and at least that of
the loop which multiplies them. Clocks, memory and what cores issue in a cycle are the
description's: see `runtime/targets/boards`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mvlm.bench.studies.assembly import Instruction
from mvlm.models.config.llama import LlamaConfig
from mvlm.models.model_zoo import find_published_model
from mvlm.runtime.targets import TargetDescription
from mvlm.runtime.targets.description import Core

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
class LoopWork:
    """What one iteration of the loop asks of a core.

    Attributes:
        instructions: All of them.
        vector: Those that a vector unit computes.
        loads: 16-byte registers loaded; a pair counts as two.
        weight_bytes: Weights that it multiplies; 0 where it is not asked for bytes.
    """

    instructions: int
    vector: int
    loads: int
    weight_bytes: int = 0


def loop_work(loop: Sequence[Instruction], weight_bytes: int = 0) -> LoopWork:
    """Return what an iteration of a loop asks of a core."""
    pairs = sum(each.loads and each.mnemonic == "ldp" for each in loop)
    return LoopWork(
        instructions=len(loop),
        vector=sum(each.is_vector for each in loop),
        loads=sum(each.loads for each in loop) + pairs,
        weight_bytes=weight_bytes,
    )


def cycles(core: Core, work: LoopWork) -> float:
    """Estimate the cycles of an iteration, everything in the caches and never waiting."""
    vector, loads = work.vector / core.vector, work.loads / core.loads
    busy = vector + loads if core.in_order else max(vector, loads)
    return max(busy, work.instructions / core.width)


def iterations_s(cores: Sequence[Core], work: LoopWork) -> float:
    """Estimate the iterations that cores do together in a second, a thread on each.

    Loops are scheduled dynamically, so that no thread waits for a slower one for long.
    """
    return sum(core.count * core.gigahertz * 1e9 / cycles(core, work) for core in cores)


def cores_bytes_s(cores: Sequence[Core], work: LoopWork) -> float:
    """Estimate the bytes of weights that cores multiply together in a second."""
    return work.weight_bytes * iterations_s(cores, work)


def bytes_per_token(config: LlamaConfig, positions: int) -> float:
    """Bytes of 4-bit weights, and of the 8-bit KV cache, that one token reads."""
    hidden, head_dim = config.hidden_size, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    layer = attention + 3 * hidden * config.intermediate_size
    weights = config.num_hidden_layers * layer + config.vocab_size * hidden
    cache = config.num_hidden_layers * positions * 2 * kv_heads * (head_dim + 4)
    return weights * _WEIGHT_BITS / 8 + cache


def tokens_s(cores: Sequence[Core], work: LoopWork, memory_bytes_s: float) -> float:
    """Estimate decoding: the lesser of what cores multiply and of what memory delivers."""
    bound = min(cores_bytes_s(cores, work), memory_bytes_s)
    return bound / bytes_per_token(find_published_model(MODEL).decoder, POSITIONS)


def table(target: TargetDescription, work: LoopWork) -> str:
    """Write the estimates as Markdown: with the fast cores, and with all of them."""
    assert target.memory is not None
    peak = target.memory.gigabytes_s
    heads = " | ".join(f"tok/s at {100 * share:.0f} % of {peak} GB/s" for share in SHARES)
    lines = [
        f"| estimated, {target.name} | compute bound | {heads} |",
        "|---|--:|" + "--:|" * len(SHARES),
    ]
    for cores in (fast_cores(target), target.cpu.cores):
        count = sum(core.count for core in cores)
        names = ", ".join(f"{core.count} {core.name}" for core in cores)
        speeds = [tokens_s(cores, work, share * peak * 1e9) for share in SHARES]
        cells = [f"{count} threads: {names}", f"{cores_bytes_s(cores, work) / 1e9:.0f} GB/s"]
        lines.append(f"| {' | '.join([*cells, *(f'{speed:.0f}' for speed in speeds)])} |")
    return "\n".join(lines) + "\n"


def fast_cores(target: TargetDescription) -> tuple[Core, ...]:
    """Return the kinds of cores that compute by default."""
    kinds, threads = [], 0
    for core in target.cpu.cores:
        if threads < target.cpu.threads:
            kinds.append(core)
            threads += core.count
    return tuple(kinds)
