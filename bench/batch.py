"""Measures steps of several sequences at once: what a step takes, and tokens a second of all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mvlm.bench.measure import MeasurementPlan
from mvlm.bench.random_tokens import random_tokens
from mvlm.runtime.artifact.layout import MOST_FEW_ROWS
from mvlm.runtime.engine import Answer, Engine, EngineSettings, Request
from mvlm.runtime.errors import UsageError
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams


@dataclass(frozen=True)
class BatchSpeed:
    """Decoding some sequences at once.

    Attributes:
        rows: How many sequences, each with a token in every step.
        step_ms: What a step takes; the median of all runs' steps.
        tok_s: Tokens of all sequences in a second, at that speed.
    """

    rows: int
    step_ms: float
    tok_s: float


def check_batch(sizes: Sequence[int], plan: MeasurementPlan, context: int) -> None:
    """Check that the sizes can be measured.

    Raises:
        UsageError: A size is out of its range, or prompt and tokens exceed the context.
    """
    for size in sizes:
        if not 1 <= size <= MOST_FEW_ROWS:
            raise UsageError("--batch", expected=f"sizes of 1 to {MOST_FEW_ROWS}", found=size)
    if plan.prompt_tokens + plan.tokens > context:
        raise UsageError(
            "--prompt-tokens and --tokens",
            expected=f"at most {context} together, the model's context",
            found=plan.prompt_tokens + plan.tokens,
        )


def measure_batch(
    model: Model,
    sizes: Sequence[int],
    plan: MeasurementPlan,
    progress: Callable[[int], None] = lambda runs: None,
) -> list[BatchSpeed]:
    """Decode different numbers of sequences, in turn, as often as the plan says.

    Args:
        model: The loaded artifact.
        sizes: The numbers of sequences.
        plan: Runs, the length of each sequence's prompt, and tokens of each.
        progress: Called with the number of finished runs.

    Raises:
        UsageError: As :func:`check_batch`.
        ContextError: There is too little memory for the sequences.
    """
    check_batch(sizes, plan, model.settings.context)
    most, page = max(sizes), model.settings.cache.page_size
    length = -(-(plan.prompt_tokens + plan.tokens + page) // page) * page
    # Prompts stay in the prefix cache, so that only the first run computes them.
    capacity = max(2 * most * length, model.settings.context)
    engine = Engine(model, EngineSettings(capacity=capacity, speculate="off"))
    steps: dict[int, list[float]] = {size: [] for size in sizes}
    vocabulary = model.settings.vocabulary
    words = random_tokens(vocabulary, max(1, plan.prompt_tokens - 2))
    prompts = [[model.settings.bos, number % vocabulary, *words] for number in range(3, 3 + most)]
    for run in range(plan.runs + 1):
        for size in sizes:
            seconds = _decode(engine, prompts[:size], plan.tokens)
            # The first run does not count: it finds cold caches.
            steps[size] += seconds if run else []
        progress(run)
    medians = {size: statistics.median(steps[size]) for size in sizes}
    return [BatchSpeed(size, 1e3 * medians[size], size / medians[size]) for size in sizes]


def read_prompts(engine: Engine, requests: Sequence[Request]) -> list[Answer]:
    """Submit requests, and compute until each answer has its first token."""
    answers = [engine.submit(request)[0] for request in requests]
    while not all(answer.tokens for answer in answers):
        engine.step()
    return answers


def _decode(engine: Engine, prompts: Sequence[Sequence[int]], tokens: int) -> list[float]:
    """Decode all sequences together, and return the seconds of each step."""
    params = SamplingParams(max_tokens=1 + tokens)
    answers = read_prompts(engine, [Request(ids, params=params) for ids in prompts])
    seconds = []
    # Prompts that were computed first are ahead of the others, and end first.
    while not any(answer.is_finished for answer in answers):
        begin = time.perf_counter()
        engine.step()
        seconds.append(time.perf_counter() - begin)
    while not engine.is_idle:
        engine.step()
    return seconds
