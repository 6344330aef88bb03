"""Examines compiled models: shows them images, asks, and keeps what they said."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image

from mvlm.runtime.chat import Chat
from mvlm.runtime.image import load_image, preprocess
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.training.evaluate import held_out_scenes
from tests.examination.drawer import Drawing, drawings
from tests.examination.questions import questions
from tests.examination.scoring import Expected, expected_of

QUESTIONS_PER_IMAGE = 3

# The longest right answer, a description of four figures, has fewer than 60 tokens.
_PARAMS = SamplingParams(max_tokens=80)
# So many held-out images, of up to 2,000 pixels a side, are in memory at a time.
_BATCH = 100


@dataclass(frozen=True)
class Outcome:
    """One question and one model's answer to it.

    Attributes:
        model: The name of the candidate that answered.
        image: The image's number in its set.
        traits: What tables group by: the question's ``kind``, the drawing's ``style``, and so on.
        question: As it was asked.
        expected: What a right answer says.
        answer: What the model said.
    """

    model: str
    image: int
    traits: dict[str, str]
    question: str
    expected: Expected
    answer: str

    @property
    def is_right(self) -> bool:
        """Whether the answer is right."""
        return self.expected.allows(self.answer)


class Candidate:
    """A compiled model that is examined.

    Args:
        name: What tables call it.
        artifact: The folder of the compiled model.
        threads: Threads for the kernels; all cores that the process may use if None.
    """

    def __init__(self, name: str, artifact: Path, threads: int | None = None) -> None:
        self.name = name
        self._model = Model(artifact, threads)
        self._chat = Chat(self._model)

    def answers(self, image: Image.Image, texts: Sequence[str]) -> list[str]:
        """Answers each question as the first about the image, which is encoded once."""
        spec = self._model.settings.image
        assert spec is not None, "the model reads no images"
        pixels = preprocess(image, spec)
        return [self._answer(text, pixels) for text in texts]

    def _answer(self, text: str, pixels: npt.NDArray[np.float32]) -> str:
        # Forgets the conversation, but not the encoded image.
        self._chat.reset()
        return self._chat.generate(text, [pixels], _PARAMS).completion.text


def examine_held_out(candidates: Sequence[Candidate], count: int = 1000) -> list[Outcome]:
    """Asks one question about each of `count` scenes that training never draws."""
    outcomes = []
    for seed, number in enumerate(_batches(count)):
        for index, example in enumerate(held_out_scenes(number, seed)):
            expected = expected_of(example.question, example.answer)
            for candidate in candidates:
                [answer] = candidate.answers(example.image, [example.question])
                outcomes.append(
                    Outcome(
                        candidate.name,
                        seed * _BATCH + index,
                        {"kind": example.kind},
                        example.question,
                        expected,
                        answer,
                    )
                )
    return outcomes


def examine_independent(
    candidates: Sequence[Candidate], count: int = 300, seed: int = 0
) -> list[Outcome]:
    """Asks three questions about each of `count` images drawn by this package."""
    asked: Counter[str] = Counter()
    outcomes = []
    for index, drawing in enumerate(drawings(count, seed)):
        rng = Random(f"{seed}/{index}/questions")
        exam = questions(drawing.truth, QUESTIONS_PER_IMAGE, asked, rng)
        # As a user's file would be read.
        image = load_image(drawing.data)
        for candidate in candidates:
            answers = candidate.answers(image, [question.text for question in exam])
            for question, answer in zip(exam, answers, strict=True):
                traits = {"kind": question.kind, "wording": question.wording, **_traits(drawing)}
                outcomes.append(
                    Outcome(candidate.name, index, traits, question.text, question.expected, answer)
                )
    return outcomes


def _traits(drawing: Drawing) -> dict[str, str]:
    """The drawing's traits with its proportions and the size of its smallest figure."""
    truth = drawing.truth
    longer, shorter = max(truth.width, truth.height), min(truth.width, truth.height)
    smallest = min(figure.size for figure in truth.figures) / longer
    return {
        **drawing.traits,
        "longer side": _range(longer, (60, 128, 336, 800, 2000)),
        "aspect": _range(longer / shorter, (1, 1.35, 2, 3)),
        "smallest figure": _range(100 * smallest, (7, 10, 14, 20, 45)) + " %",
    }


def _range(value: float, bounds: Sequence[float]) -> str:
    """Which two bounds a value is between."""
    index = min(bisect(bounds[1:-1], value), len(bounds) - 2)
    return f"{bounds[index]:g} to {bounds[index + 1]:g}"


def _batches(count: int) -> Iterator[int]:
    for begin in range(0, count, _BATCH):
        yield min(_BATCH, count - begin)
