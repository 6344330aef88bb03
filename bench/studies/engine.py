"""What the engine's promises are worth in time: drafts, company, and reading ahead.

Four measurements of a compiled MobileVLM, each interleaved with what it is compared with:

- ``drafts``: tokens a second where 0 to 3 of three drafted tokens are right, of plain decoding. The
  drafts are those of a known answer, of which some are replaced by wrong ones.
- ``pauses``: the longest pause between two tokens of an answer, while the prompt of another one is
  read, and while its image is encoded.
- ``ahead``: from a question about an image to its first token, where the image was attached before.
- ``sequences``: one step and the tokens of all, of as many sequences.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvlm.bench.batch import measure_batch, read_prompts
from mvlm.bench.docs_table import write_table
from mvlm.bench.measure import MeasurementPlan
from mvlm.bench.random_tokens import random_tokens
from mvlm.runtime.engine import Answer, Engine, EngineSettings, Request
from mvlm.runtime.engine.speculation import Draft, NgramDrafter
from mvlm.runtime.machine import read_machine
from mvlm.runtime.model import FloatArray, Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID

DOCUMENT = Path("docs/engine.md")
_DRAFTED = 3
_PROMPT, _TOKENS = 200, 48
_LONG_PROMPT = 1000
_QUESTION = 20
_SIZES = (1, 2, 4, 8, 16)


class Replay(NgramDrafter):
    """Drafts what is known to follow, with a wrong token behind some right ones.

    Attributes:
        known: The prompt and its whole answer.
        right: How many of a draft's tokens are right.
    """

    known: Sequence[int] = ()
    right: int = _DRAFTED

    def propose(self, ids: Sequence[int], most: int) -> Draft | None:
        """Return the next tokens; see :class:`Drafter`."""
        tokens = list(self.known[len(ids) : len(ids) + min(most, _DRAFTED)])
        # Any other token is wrong; this one is in the vocabulary.
        tokens[self.right :] = [int(token == 0) for token in tokens[self.right :]]
        return Draft(tuple(tokens), 4) if tokens else None


@dataclass(frozen=True)
class Line:
    """A line of the table: what was measured, and its number with a unit."""

    name: str
    value: str


def measure_drafts(model: Model, runs: int) -> Iterator[Line]:
    """Decode with drafts of which a known number is right, beside plain decoding."""
    ids = [model.settings.bos, *random_tokens(model.settings.vocabulary, _PROMPT - 1)]
    plain = Engine(model, EngineSettings(speculate="off"))
    drafting = Engine(model, EngineSettings(speculate="ngram"))
    answer, _ = _decode(plain, ids)
    Replay.known = [*ids, *answer.tokens]
    times: dict[int | None, list[float]] = {}
    for _ in range(runs):
        for right in (None, *range(_DRAFTED + 1)):
            Replay.right = right or 0
            engine = plain if right is None else drafting
            found, seconds = _decode(engine, ids, None if right is None else Replay())
            assert found.tokens == answer.tokens
            times.setdefault(right, []).append(seconds)
    base = statistics.median(times.pop(None))
    for right, found_times in times.items():
        gain = base / statistics.median(found_times)
        yield Line(f"drafts of 3, {right} right: tokens a second, of plain", f"{gain:.2f} x")


def _decode(
    engine: Engine, ids: Sequence[int], drafter: NgramDrafter | None = None
) -> tuple[Answer, float]:
    """Decode an answer; returns it, and the seconds behind its first token."""
    (answer,) = read_prompts(engine, [Request(ids, params=SamplingParams(max_tokens=_TOKENS))])
    (running,) = engine._scheduler._running
    if drafter is not None:
        running.drafter = drafter
    begin = time.perf_counter()
    while not answer.is_finished:
        engine.step()
    return answer, time.perf_counter() - begin


def measure_pauses(model: Model, runs: int) -> Iterator[Line]:
    """Decode an answer while the prompt of another one is read, and its image encoded."""
    vocabulary, bos = model.settings.vocabulary, model.settings.bos
    engine = Engine(model, EngineSettings(capacity=2 * model.settings.context, speculate="off"))
    long = [bos, *random_tokens(vocabulary, _LONG_PROMPT - 1)]
    cases = [(f"a prompt of {_LONG_PROMPT} positions is read", long, 0)]
    if model.settings.image is not None:
        cases.append(("an image is encoded", [bos, IMAGE_TOKEN_ID, *long[:_QUESTION]], 1))
    for name, ids, images in cases:
        longest = []
        for run in range(runs):
            engine.clear()
            own = Request([bos, *long[:_PROMPT]], params=SamplingParams(max_tokens=1_000))
            (answer,) = read_prompts(engine, [own])
            shown = [_pixels(model, run) for _ in range(images)]
            (other,) = engine.submit(Request(ids, shown, SamplingParams(max_tokens=2)))
            longest.append(max(_pauses(engine, answer, other)))
            answer.cancel()
        yield Line(
            f"longest pause of an answer while {name}", f"{1e3 * statistics.median(longest):.0f} ms"
        )


def _pauses(engine: Engine, answer: Answer, other: Answer) -> Iterator[float]:
    """Compute until another answer is finished; yields what each token of the first took."""
    last, count = time.perf_counter(), len(answer.tokens)
    while not other.is_finished:
        engine.step()
        if len(answer.tokens) > count:
            now, count = time.perf_counter(), len(answer.tokens)
            yield now - last
            last = now


def measure_reading_ahead(model: Model, runs: int) -> Iterator[Line]:
    """Ask about an image that was attached before, beside one that comes with the question."""
    if model.settings.image is None:
        return
    words = [model.settings.bos, *random_tokens(model.settings.vocabulary, _QUESTION + 30)]
    before = [*words[:30], IMAGE_TOKEN_ID]
    times: tuple[list[float], list[float]] = [], []
    for run in range(2 * runs):
        engine, shown = Engine(model, EngineSettings(speculate="off")), [_pixels(model, run)]
        if run % 2:
            engine.read_ahead(Request(before, shown))
            while not engine.is_idle:
                engine.step()
        begin = time.perf_counter()
        read_prompts(engine, [Request([*before, *words[30:]], shown)])
        times[run % 2].append(time.perf_counter() - begin)
    cold, attached = map(statistics.median, times)
    yield Line("first token of a question with its image", f"{1e3 * cold:.0f} ms")
    yield Line(
        "the same about an image that was attached before",
        f"{1e3 * attached:.0f} ms, {attached / cold:.2f} x",
    )


def measure_sequences(model: Model, runs: int) -> Iterator[Line]:
    """Decode different numbers of sequences."""
    speeds = measure_batch(model, _SIZES, MeasurementPlan(runs, _PROMPT, _TOKENS // 2))
    for speed in speeds:
        longer, more = speed.step_ms / speeds[0].step_ms, speed.tok_s / speeds[0].tok_s
        yield Line(
            f"a step of {speed.rows} {'sequence' if speed.rows == 1 else 'sequences'}, and the "
            "tokens of all; of one's",
            f"{speed.step_ms:.1f} ms, {longer:.2f} x; {speed.tok_s:.0f} tok/s, {more:.2f} x",
        )


def _pixels(model: Model, seed: int) -> FloatArray:
    assert model.settings.image is not None
    size = model.settings.image.size
    return np.random.default_rng(seed).standard_normal((1, 3, size, size), np.float32)


MEASUREMENTS: dict[str, Callable[[Model, int], Iterator[Line]]] = {
    "sequences": measure_sequences,
    "drafts": measure_drafts,
    "pauses": measure_pauses,
    "ahead": measure_reading_ahead,
}


def main() -> None:
    """Measure, and print the table or put it into the documentation."""
    parser = argparse.ArgumentParser(
        prog="python -m mvlm.bench.studies.engine", description=__doc__
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--only", choices=MEASUREMENTS, action="append")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args()
    model = Model(options.artifact, options.threads)
    lines = [
        line
        for name in options.only or MEASUREMENTS
        for line in MEASUREMENTS[name](model, options.runs)
    ]
    facts = f"{read_machine().cpu}, {model.threads} threads, {model.folder.resolve().name}"
    rows = (Line("what", facts), Line("---", "---"), *lines)
    table = "".join(f"| {line.name} | {line.value} |\n" for line in rows)
    print(table)
    if options.write:
        write_table(DOCUMENT, "engine", table)


if __name__ == "__main__":
    main()
