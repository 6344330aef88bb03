"""What each quantization costs in quality: ``python -m mvlm.bench.studies.quality``.

Two models are measured. The bundled one answers held-out questions about images: how many it
gets right, and the perplexity of the right answers' tokens. A synthetic decoder of MobileLLaMA's
width, whose weights are random, reads random tokens: how far its next-token distributions lie from
the unquantized ones, as the mean Kullback-Leibler divergence in nats. Training has prepared the
bundled model for 4 bits; the synthetic one is not prepared for anything.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mvlm.bench.docs_table import write_table
from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.models.model_zoo import find_published_model
from mvlm.models.quantization import SCHEMES, plan_quantization
from mvlm.models.rounding import Rounding
from mvlm.models.synthetic import write_synthetic
from mvlm.runtime.artifact import read_manifest
from mvlm.runtime.chat import Chat
from mvlm.runtime.image import preprocess
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.session import Session, Trace
from mvlm.runtime.template import Turn
from mvlm.training.evaluate import Example, held_out_scenes, is_right

FloatArray = npt.NDArray[np.float32]

BUNDLED = Path(__file__).parents[2] / "models" / "bundled" / "mobilevlm-shapes"
SYNTHETIC = "MobileLLaMA-1.4B"
# Enough layers that errors add up, and few enough to try seven schemes in minutes.
SYNTHETIC_LAYERS = 4
SYNTHETIC_TOKENS = 192

# What is compared, scheme, rounding and KV cache: every scheme in its own way, the other rounding
# where there are two, and what keys and values cost by themselves.
CANDIDATES: tuple[tuple[str, Rounding, str], ...] = (
    *(
        (name, rounding, scheme.cache)
        for name, scheme in SCHEMES.items()
        for rounding in (("nearest", "search") if scheme.weights.is_integer else ("nearest",))
    ),
    ("q0f32", "nearest", "float16"),
    ("q0f32", "nearest", "int8"),
    ("q4a8", "search", "float16"),
)
DOCUMENT = Path("docs/quantization.md")
_LONGEST_ANSWER = 80


@dataclass(frozen=True)
class Quality:
    """What one scheme makes of the two models.

    Attributes:
        scheme: The quantization of the decoder, its table and its head.
        rounding: How scales are chosen.
        cache: The storage of keys and values.
        is_default: Whether that is the scheme's own way.
        bits_per_weight: Of a large matrix.
        weight_bytes: Of all the bundled model's weights, the tower's among them.
        accuracy: Share of right answers, 0 to 1.
        perplexity: Of the right answers' tokens.
        divergence: Mean Kullback-Leibler divergence of the synthetic decoder, in nats.
    """

    scheme: str
    rounding: Rounding
    cache: str
    is_default: bool
    bits_per_weight: float
    weight_bytes: int
    accuracy: float
    perplexity: float
    divergence: float


def measure(scenes: int, folder: Path) -> Iterator[Quality]:
    """Measure all candidates; artifacts are written to `folder`."""
    examples = held_out_scenes(scenes)
    synthetic = folder / "synthetic"
    synthetic.mkdir()
    write_synthetic(
        find_published_model(SYNTHETIC),
        synthetic,
        layers=SYNTHETIC_LAYERS,
        file_format="safetensors",
    )
    exact: FloatArray | None = None
    for candidate in CANDIDATES:
        scheme, rounding, cache = candidate
        quantization = plan_quantization(scheme, rounding=rounding, cache=cache)
        places = [folder / "-".join((name, *candidate)) for name in ("bundled", "synthetic")]
        for checkpoint, place in zip((BUNDLED, synthetic), places, strict=True):
            compile_job(plan_job(checkpoint, quantization=quantization), place)
        bundled = Model(places[0])
        logits = _logits(Model(places[1]))
        exact = logits if exact is None else exact
        files = read_manifest(places[0]).files
        yield Quality(
            scheme,
            rounding,
            cache,
            is_default=(SCHEMES[scheme].rounding, SCHEMES[scheme].cache) == (rounding, cache),
            bits_per_weight=SCHEMES[scheme].weights.bits_per_weight,
            weight_bytes=sum(entry.size for entry in files if entry.path.endswith(".bin")),
            accuracy=_accuracy(bundled, examples),
            perplexity=_perplexity(bundled, examples),
            divergence=divergence(exact, logits),
        )


def divergence(exact: FloatArray, logits: FloatArray) -> float:
    """Mean over positions of KL(exact || other) of two arrays of logits ``(n, V)``, in nats."""
    left, right = log_softmax(exact), log_softmax(logits)
    return float((np.exp(left) * (left - right)).sum(axis=-1).mean())


def log_softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    """Natural logarithms of the probabilities that logits ``(n, V)`` stand for."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def table(results: Sequence[Quality]) -> str:
    """Write results as Markdown."""
    lines = [
        "| scheme | rounding | KV cache | bits a weight | weights | right answers | perplexity "
        "| KL, nats |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        name = f"**`{result.scheme}`**" if result.is_default else f"`{result.scheme}`"
        is_integer = SCHEMES[result.scheme].weights.is_integer
        lines.append(
            f"| {name} | {result.rounding if is_integer else ''} "
            f"| {result.cache} | {result.bits_per_weight:g} | {result.weight_bytes / 1e6:.2f} MB "
            f"| {100 * result.accuracy:.1f} % | {result.perplexity:.4f} "
            f"| {result.divergence:.2e} |"
        )
    return "\n".join(lines) + "\n"


def _accuracy(model: Model, examples: Sequence[Example]) -> float:
    chat, spec = Chat(model), model.settings.image
    assert spec is not None
    right = 0
    for example in examples:
        chat.reset()
        pixels = preprocess(example.image, spec)
        generation = chat.generate(
            example.question, [pixels], SamplingParams(max_tokens=_LONGEST_ANSWER)
        )
        right += is_right(example.kind, example.answer, generation.completion.text)
    return right / len(examples)


def _perplexity(model: Model, examples: Sequence[Example]) -> float:
    chat, session, spec = Chat(model), Session(model), model.settings.image
    assert spec is not None
    total, count = 0.0, 0
    for example in examples:
        prompt, whole = (
            chat.tokenizer.encode_prompt(chat.template.render([Turn(example.question, 1, answer)]))
            for answer in (None, example.answer)
        )
        trace = Trace()
        image = session.encode_image(preprocess(example.image, spec))
        session.prefill(whole, [image], trace)
        assert trace.prefill_logits is not None
        answer = whole[len(prompt) :]
        begin = session.length(prompt) - 1  # the position whose logits choose the first token
        chances = log_softmax(trace.prefill_logits[begin : begin + len(answer)])
        total -= float(chances[np.arange(len(answer)), answer].sum())
        count += len(answer)
    return float(np.exp(total / count))


def _logits(model: Model) -> FloatArray:
    ids = np.random.default_rng(0).integers(3, model.settings.vocabulary, SYNTHETIC_TOKENS)
    cache = model.new_cache(SYNTHETIC_TOKENS)
    return model.prefill(model.embed(ids.tolist()), cache, all_logits=True)


def main() -> None:
    """Measure, and print the table or put it into the documentation."""
    parser = argparse.ArgumentParser(
        prog="python -m mvlm.bench.studies.quality", description=__doc__
    )
    parser.add_argument("--scenes", type=int, default=1000, help="held-out images")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for result in measure(options.scenes, Path(folder)):
            results.append(result)
            print(table([result]).splitlines()[-1], flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    if options.write:
        write_table(DOCUMENT, "quality", table(results))


if __name__ == "__main__":
    main()
