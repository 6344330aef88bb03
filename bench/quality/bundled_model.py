"""What each quantization costs the bundled model, and a synthetic decoder.

The bundled model answers held-out questions about images: how many it gets right, and the
perplexity of the right answers' tokens. Its training includes rounding to 4 bits. A synthetic
decoder of MobileLLaMA's width, whose weights are random, reads random tokens: how far its
next-token distributions lie from the unquantized ones. It is prepared for nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mvlm.bench.quality.judgement import FloatArray, divergence, log_softmax
from mvlm.bench.quality.results import Results, result_key
from mvlm.compile.driver import compile_job
from mvlm.compile.job import CompileJob, plan_job
from mvlm.models.model_zoo import find_published_model
from mvlm.models.quantization import SCHEMES, plan_quantization
from mvlm.models.rounding import Rounding
from mvlm.models.synthetic import write_synthetic
from mvlm.runtime.artifact import read_manifest
from mvlm.runtime.chat import Chat
from mvlm.runtime.engine import Engine
from mvlm.runtime.image import preprocess
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.template import Turn
from mvlm.training.evaluate import Example, held_out_scenes, is_right

BUNDLED = Path(__file__).parents[2] / "models" / "bundled" / "mobilevlm-shapes"
SYNTHETIC = "MobileLLaMA-1.4B"
# Enough layers that errors add up, and few enough to try all schemes in minutes.
SYNTHETIC_LAYERS = 4
SYNTHETIC_TOKENS = 192

_LONGEST_ANSWER = 80


@dataclass(frozen=True)
class Candidate:
    """What is compared: a scheme, its rounding and its KV cache.

    Attributes:
        scheme: The quantization of the decoder, its table and its head.
        rounding: How scales are chosen.
        cache: The storage of keys and values.
    """

    scheme: str
    rounding: Rounding
    cache: str

    @property
    def name(self) -> str:
        """On the command line."""
        return f"bundled {self.scheme} {self.rounding} {self.cache}"

    @property
    def is_default(self) -> bool:
        """Whether that is the scheme's own way."""
        scheme = SCHEMES[self.scheme]
        return (scheme.rounding, scheme.cache) == (self.rounding, self.cache)

    def plan(self, checkpoint: Path) -> CompileJob:
        """Plan the compilation of a checkpoint."""
        return plan_job(
            checkpoint,
            quantization=plan_quantization(self.scheme, rounding=self.rounding, cache=self.cache),
        )


# Every scheme in its own way, the other rounding where there are two, and what keys and values
# cost by themselves.
CANDIDATES = (
    *(
        Candidate(name, rounding, scheme.cache)
        for name, scheme in SCHEMES.items()
        for rounding in (("nearest", "search") if scheme.weights.is_integer else ("nearest",))
    ),
    Candidate("q0f32", "nearest", "float16"),
    Candidate("q0f32", "nearest", "int8"),
    Candidate("q4a8", "search", "float16"),
)


@dataclass(frozen=True)
class BundledFigures:
    """What one candidate makes of the two models.

    Attributes:
        bits_per_weight: Of a large matrix.
        weight_bytes: Of all the bundled model's weights, the tower's among them.
        accuracy: Share of right answers, 0 to 1.
        perplexity: Of the right answers' tokens.
        divergence: Mean Kullback-Leibler divergence of the synthetic decoder, in nats.
    """

    bits_per_weight: float
    weight_bytes: int
    accuracy: float
    perplexity: float
    divergence: float


class BundledStudy:
    """Measures candidates; what they share is made when the first needs it.

    Args:
        scenes: Held-out images to ask about.
        kept: The folder of the figures.
    """

    def __init__(self, scenes: int, kept: Path) -> None:
        self._scenes = scenes
        self._stack = ExitStack()
        self.results = Results(kept, lambda values: BundledFigures(**values))

    def tasks(self, candidates: Sequence[Candidate]) -> list[BundledTask]:
        """Return what measures each candidate."""
        return [BundledTask(candidate, self) for candidate in candidates]

    def close(self) -> None:
        """Remove what was made."""
        self._stack.close()

    def key(self, candidate: Candidate) -> str:
        """Name all that a candidate's figures depend on."""
        synthetic = f"{SYNTHETIC} {SYNTHETIC_LAYERS} {SYNTHETIC_TOKENS}"
        return result_key(candidate.plan(BUNDLED).key(), synthetic, str(self._scenes))

    def measure(self, candidate: Candidate) -> BundledFigures:
        """Compile both models and measure them."""
        exact = self._exact_logits
        artifact = self._compile(candidate, BUNDLED)
        bundled, files = Model(artifact), read_manifest(artifact).files
        return BundledFigures(
            bits_per_weight=SCHEMES[candidate.scheme].weights.bits_per_weight,
            weight_bytes=sum(entry.size for entry in files if entry.path.endswith(".bin")),
            accuracy=_accuracy(bundled, self._examples),
            perplexity=_perplexity(bundled, self._examples),
            divergence=divergence(exact, self._synthetic_logits(candidate)),
        )

    @cached_property
    def _folder(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory()))

    @cached_property
    def _examples(self) -> Sequence[Example]:
        return held_out_scenes(self._scenes)

    @cached_property
    def _synthetic(self) -> Path:
        folder = self._folder / "synthetic"
        folder.mkdir()
        write_synthetic(
            find_published_model(SYNTHETIC),
            folder,
            layers=SYNTHETIC_LAYERS,
            file_format="safetensors",
        )
        return folder

    @cached_property
    def _exact_logits(self) -> FloatArray:
        return self._synthetic_logits(CANDIDATES[0])

    def _synthetic_logits(self, candidate: Candidate) -> FloatArray:
        return _logits(Model(self._compile(candidate, self._synthetic)))

    def _compile(self, candidate: Candidate, checkpoint: Path) -> Path:
        """Return an artifact, which is kept until the next.

        Each has a path of its own: of one path the loader gives the library that it has open.
        """
        for earlier in self._folder.glob("compiled-*"):
            shutil.rmtree(earlier)
        place = Path(tempfile.mkdtemp(prefix="compiled-", dir=self._folder)) / "artifact"
        compile_job(candidate.plan(checkpoint), place)
        return place


@dataclass(frozen=True)
class BundledTask:
    """A candidate, with what measures it."""

    candidate: Candidate
    study: BundledStudy

    @property
    def name(self) -> str:
        """The candidate's."""
        return self.candidate.name

    @property
    def results(self) -> Results[BundledFigures]:
        """Those of all candidates."""
        return self.study.results

    def key(self) -> str:
        """The candidate's."""
        return self.study.key(self.candidate)

    def measure(self) -> BundledFigures:
        """Compile both models and measure them."""
        return self.study.measure(self.candidate)


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
    chat, spec = Chat(model), model.settings.image
    assert spec is not None
    total, count = 0.0, 0
    for example in examples:
        prompt, whole = (
            chat.tokenizer.encode_prompt(chat.template.render([Turn(example.question, 1, answer)]))
            for answer in (None, example.answer)
        )
        logits = chat.engine.logits(whole, [preprocess(example.image, spec)])
        answer = whole[len(prompt) :]
        # The first position's logits are those that the answer's first token is chosen from.
        begin = chat.engine.length(prompt) - 1
        chances = log_softmax(logits[begin : begin + len(answer)])
        total -= float(chances[np.arange(len(answer)), answer].sum())
        count += len(answer)
    return float(np.exp(total / count))


def _logits(model: Model) -> FloatArray:
    ids = np.random.default_rng(0).integers(3, model.settings.vocabulary, SYNTHETIC_TOKENS)
    return Engine(model).logits(ids.tolist())
