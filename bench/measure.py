"""Measures a model's speeds: each run looks at an image, reads a prompt and decodes an answer.

A run is what a user waits for, but for the text: the prompt is of a given number of positions, and
decoding goes on for a given number of tokens whatever they are. Every run begins with an empty KV
cache and an image that has not been seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mvlm.bench.random_tokens import random_tokens
from mvlm.runtime.completion import Stats
from mvlm.runtime.engine import Engine, EngineSettings, Request
from mvlm.runtime.errors import UsageError
from mvlm.runtime.machine import peak_rss_bytes
from mvlm.runtime.model import FloatArray, Model
from mvlm.runtime.profiler import KernelTime
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.settings import ChatSettings
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID

_MAX_RUNS = 10_000


@dataclass(frozen=True)
class MeasurementPlan:
    """What is measured.

    Attributes:
        runs: Runs that count; one more before them does not, because it finds cold caches.
        prompt_tokens: Positions of the prompt, those of the image included.
        tokens: Tokens decoded after the first, which the prefill gives.
    """

    runs: int = 5
    prompt_tokens: int = 200
    tokens: int = 64

    def __post_init__(self) -> None:
        for option, value, most in (
            ("--runs", self.runs, _MAX_RUNS),
            ("--prompt-tokens", self.prompt_tokens, None),
            ("--tokens", self.tokens, None),
        ):
            if value < 1 or (most and value > most):
                expected = f"1 to {most}" if most else "1 or more"
                raise UsageError(option, expected=expected, found=value)


def measure_speeds(
    model: Model,
    plan: MeasurementPlan,
    pixels: FloatArray | None = None,
    progress: Callable[[int], None] = lambda runs: None,
) -> list[Stats]:
    """Run a model and time its stages.

    Args:
        model: The loaded artifact.
        plan: What to run.
        pixels: An image ``(1, 3, S, S)``; None for a model of text only.
        progress: Called with the number of finished runs, from 0 after the one that does not count.

    Returns:
        The speeds of each run. The peak memory is the process's, so far.

    Raises:
        UsageError: The plan does not fit into the model's context.
    """
    ids = _prompt(model.settings, plan, pixels is not None)
    results = []
    for done in range(plan.runs + 1):
        stats = _run(model, ids, pixels, plan.tokens)
        if done:
            results.append(stats)
        progress(done)
    return results


def profile_kernels(
    model: Model, plan: MeasurementPlan, pixels: FloatArray | None = None
) -> Mapping[str, tuple[KernelTime, ...]]:
    """Run a model twice and time the second run's kernels, by function.

    Arguments and errors are those of :func:`measure_speeds`.
    """
    ids, profiler = _prompt(model.settings, plan, pixels is not None), model.profiler()
    _run(model, ids, pixels, plan.tokens)
    profiler.clear()
    _run(model, ids, pixels, plan.tokens)
    return profiler.times()


def _prompt(settings: ChatSettings, plan: MeasurementPlan, has_image: bool) -> list[int]:
    """Make up a prompt of the planned number of positions; the same one each time."""
    image = settings.image_tokens if has_image else 0
    text = plan.prompt_tokens - image
    if text < 2:
        raise UsageError(
            "--prompt-tokens",
            expected=f"at least {image + 2}, because the image takes {image}",
            found=plan.prompt_tokens,
        )
    if plan.prompt_tokens + plan.tokens > settings.context:
        raise UsageError(
            "--prompt-tokens and --tokens",
            expected=f"at most {settings.context} together, the model's context",
            found=plan.prompt_tokens + plan.tokens,
        )
    words = random_tokens(settings.vocabulary, text - 1)
    return [settings.bos, *([IMAGE_TOKEN_ID] if has_image else []), *words]


def _run(model: Model, ids: list[int], pixels: FloatArray | None, tokens: int) -> Stats:
    # Without drafts, which would make random answers of some models faster than others.
    engine, begin = Engine(model, EngineSettings(speculate="off")), time.perf_counter()
    images = [] if pixels is None else [pixels]
    # Without an end of sequence: all runs decode as many tokens.
    (answer,) = engine.submit(Request(ids, images, SamplingParams(max_tokens=1 + tokens)))
    times = [time.perf_counter() for _ in engine.tokens(answer)]
    stats = answer.stats
    return Stats(
        vision_ms=1e3 * stats.image_seconds,
        prefill_tok_s=stats.computed / stats.prefill_seconds,
        decode_tok_s=tokens / (times[-1] - times[0]),
        first_token_ms=1e3 * (times[0] - begin),
        drafted=stats.drafted,
        accepted=stats.accepted,
        tokens_per_step=len(times) / stats.steps,
        peak_rss_bytes=peak_rss_bytes(),
    )
