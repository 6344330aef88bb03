"""Which shape a conversation is about, token by token, and a loss that makes the decoder know it.

Looking a phrase up in the image is the one skill behind nearly every answer, and answers alone
teach it slowly: "Yes." says little about which tokens should have been read. So, halfway up the
decoder, the last token of "the red circle" must say where and how big the shape is that it means,
and further up each token in front of a spoken name which shape comes next. The heads that read
this are thrown away; the idea is that of phrase grounding (Flickr30k Entities, arXiv 1505.04870).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mvlm.training.alignment import CONCEPTS, GEOMETRY, RANKS, Facts
from mvlm.training.tower_pretraining import ranks_of
from mvlm.training.world.questions import Question, in_mention_order
from mvlm.training.world.scene import COLOURS, MAX_SHAPES, SHAPES, Scene, Shape

#: After how many layers a phrase must be resolved, and the next shape chosen.
PHRASE_LAYERS, SPEECH_LAYERS = 2, 4

_NOUNS = {kind + end: kind for kind in SHAPES for end in ("", "s")}
_GENERIC = {"shape", "thing", "object", "one", "figure"}
_RANK = {word: index for index, words in enumerate(RANKS) for word in words}
_ONE_SUBJECT = {"colour", "shape", "attribute", "where"}


@dataclass(frozen=True)
class Phrase:
    """What a phrase fits: how many shapes, and if it is one, its number from 1 (else 0)."""

    count: int
    shape: int


def phrases(pieces: Sequence[str], scene: Scene) -> list[Phrase | None]:
    """For each piece of a question, what the phrase fits that ends there; None if none does."""
    result: list[Phrase | None] = [None] * len(pieces)
    words = _words(pieces)
    for (before, _), (word, last) in pairwise(words):
        colour = before if before in COLOURS else None
        if word in _NOUNS:
            fitting = _fitting(scene, _NOUNS[word], colour)
        elif word in _GENERIC and colour:
            fitting = _fitting(scene, None, colour)
        elif word in _GENERIC and before in _RANK:
            ranks = [row[_RANK[before]] for row in ranks_of(scene)]
            fitting = [i + 1 for i, rank in enumerate(ranks) if rank == 1]
        else:
            continue
        result[last] = Phrase(len(fitting), fitting[0] if len(fitting) == 1 else 0)
    return result


def spoken_shapes(
    pieces: Sequence[str], question: Question, asked: Sequence[Phrase | None], scene: Scene
) -> list[int]:
    """For each piece of an answer, the number from 1 of the shape that it is said of; 0 for none.

    `asked` are the phrases of the question.
    """
    result = [0] * len(pieces)
    meant = {phrase.shape for phrase in asked if phrase and phrase.shape}
    subject = meant.pop() if question.kind in _ONE_SUBJECT and len(meant) == 1 else 0
    order = [scene.shapes.index(shape) + 1 for shape in in_mention_order(scene)]
    told: Counter[tuple[str | None, str | None]] = Counter()
    for begin, end in _clauses(pieces):
        words = [word for word, _ in _words(pieces[begin:end])]
        kind = next((_NOUNS[word] for word in words if word in _NOUNS), None)
        colour = next((word for word in words if word in COLOURS), None)
        number = subject
        if (kind or colour) and not subject:
            fitting = set(_fitting(scene, kind, colour))
            ordered = [one for one in order if one in fitting]
            nth = told[kind, colour]
            told[kind, colour] += 1
            if len(ordered) == 1 or (question.kind in ("list", "describe") and ordered):
                number = ordered[min(nth, len(ordered) - 1)]
        result[begin:end] = [number] * (end - begin)
    return result


def _fitting(scene: Scene, kind: str | None, colour: str | None) -> list[int]:
    def fits(shape: Shape) -> bool:
        return kind in (None, shape.kind) and colour in (None, shape.colour)

    return [i + 1 for i, shape in enumerate(scene.shapes) if fits(shape)]


def _words(pieces: Sequence[str]) -> list[tuple[str, int]]:
    """Words in lower case, each with the index of its last piece."""
    words: list[tuple[str, int]] = []
    for index, piece in enumerate(pieces):
        letters = piece.lstrip("▁")
        if not letters.isalpha():
            continue
        if piece.startswith("▁") or not words or words[-1][1] != index - 1:
            words.append((letters.lower(), index))
        else:
            words[-1] = (words[-1][0] + letters.lower(), index)
    return words


def _clauses(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Begin and end of the parts between commas, colons and "and"; separators end a part."""
    result, begin = [], 0
    for index, piece in enumerate(pieces):
        if piece.lstrip("▁") in (",", ":", "and") or index == len(pieces) - 1:
            result.append((begin, index + 1))
            begin = index + 1
    return result


class GroundingHeads(nn.Module):
    """Linear readers of hidden states, thrown away afterwards."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.parts = [len(CONCEPTS), GEOMETRY, MAX_SHAPES]
        self.count = nn.Linear(hidden, MAX_SHAPES + 1)
        self.phrase = nn.Linear(hidden, sum(self.parts))
        self.speech = nn.Linear(hidden, sum(self.parts))

    def forward(
        self, states: Sequence[Tensor], meant: Tensor, counts: Tensor, spoken: Tensor, known: Facts
    ) -> Tensor:
        """The loss of hidden states (n, length, hidden) per layer, against what shapes are meant.

        `meant`, `counts` and `spoken` (n, length) are those of `Batch`; `known`: the facts about
        the shapes.
        """
        phrase, speech = states[PHRASE_LAYERS - 1], states[SPEECH_LAYERS - 1]
        ends = counts >= 0
        counted = self.count(F.rms_norm(phrase[ends], phrase.shape[-1:]))
        return (
            self._loss(self.phrase, phrase, known.at(meant))
            + self._loss(self.speech, speech, known.at(spoken))
            + F.cross_entropy(counted, counts[ends], reduction="sum") / max(1, int(ends.sum()))
        )

    def _loss(self, head: nn.Linear, hidden: Tensor, true: Facts) -> Tensor:
        at = true.known
        if not at.any():
            return hidden.new_zeros(())
        said = head(F.rms_norm(hidden[at], hidden.shape[-1:]))
        concepts, geometry, order = said.split(self.parts, -1)
        wanted = true.concepts[at].float()
        return (
            F.binary_cross_entropy_with_logits(concepts, wanted, reduction="none").sum(-1).mean()
            + 2.0 * F.smooth_l1_loss(geometry, true.geometry[at], beta=0.1)
            + 0.5 * F.cross_entropy(order, true.order[at])
        )
