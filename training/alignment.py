"""Aligns image tokens with words before the decoder sees either.

The paper's first stage teaches a decoder that can read what image tokens mean, from captions. Ours
starts from nothing, and learns from captions alone far too slowly to look anything up. So the
projector first learns to say, in each image token, which words are true of the shape that it shows:
the token is drawn to the embeddings of those words and pushed away from the others, with a sigmoid
for each pair ("Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343, word by word).
What no word says, where exactly the shape is and how big, must be legible in the token as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mvlm.training.image_store import GRID, ImageBatch, shares
from mvlm.training.prompt import Prompter
from mvlm.training.tower_pretraining import PARTS, geometry_of, ranks_of
from mvlm.training.world.questions import in_mention_order, place_name
from mvlm.training.world.scene import COLOURS, MAX_SHAPES, SHAPES, Scene, Shape

#: What can be true of a shape, and the words that say so.
_KINDS = [(kind, kind + "s") for kind in SHAPES]
_COLOURS = [(colour, colour.capitalize()) for colour in COLOURS]
#: In the order of `ranks_of`.
RANKS = [
    ("leftmost",), ("rightmost",), ("topmost", "highest"), ("lowest", "bottommost"),
    ("biggest", "largest"), ("smallest",),
]  # fmt: skip
_PLACES = [("top",), ("bottom",), ("left",), ("right",), ("center",)]
CONCEPTS = [*_KINDS, *_COLOURS, *RANKS, *_PLACES]
GEOMETRY = PARTS["geometry"]


@dataclass(frozen=True)
class Facts:
    """What is true of the shapes of some images, or of the shape at each of some places.

    `concepts` (..., concepts) booleans, `geometry` (..., 6) from `geometry_of`, `order` (...) the
    shape's number in telling order from 0, and `known` (...): False where there is no shape.
    """

    concepts: Tensor
    geometry: Tensor
    order: Tensor
    known: Tensor

    def at(self, shapes: Tensor) -> Facts:
        """The facts about the shapes (n, ...) with these numbers, from 1; 0 stands for none."""
        row = torch.arange(len(shapes)).view(-1, *[1] * (shapes.dim() - 1))
        parts = (self.concepts, self.geometry, self.order, self.known)
        return Facts(*(part[row, shapes] for part in parts))


def facts(scenes: list[Scene]) -> Facts:
    """The facts about each scene's shapes; shape `i` is in column `i + 1`."""
    columns = (len(scenes), MAX_SHAPES + 1)
    concepts = torch.zeros(*columns, len(CONCEPTS), dtype=torch.bool)
    geometry = torch.zeros(*columns, GEOMETRY)
    order = torch.zeros(columns, dtype=torch.long)
    known = torch.zeros(columns, dtype=torch.bool)
    for row, scene in enumerate(scenes):
        told = in_mention_order(scene)
        for i, (shape, ranks) in enumerate(zip(scene.shapes, ranks_of(scene), strict=True)):
            concepts[row, i + 1] = torch.tensor(_concepts(scene, shape, ranks))
            geometry[row, i + 1] = torch.tensor(geometry_of(scene, shape))
            order[row, i + 1] = told.index(shape)
            known[row, i + 1] = True
    return Facts(concepts, geometry, order, known)


def _concepts(scene: Scene, shape: Shape, ranks: list[float]) -> list[bool]:
    place = (place_name(scene, shape) or "").split()
    return [
        *(kind == shape.kind for kind in SHAPES),
        *(colour == shape.colour for colour in COLOURS),
        *(rank == 1 and len(scene.shapes) > 1 for rank in ranks),
        *(words[0] in place for words in _PLACES),
    ]


class TokenReader(nn.Module):
    """Reads what an image token says of its shape; thrown away afterwards.

    Words are read by the decoder's own embeddings, numbers by a linear layer. The decoder sees
    tokens through an RMSNorm, and so does this.
    """

    def __init__(self, prompter: Prompter, hidden: int) -> None:
        super().__init__()
        pairs = [
            (row, prompter.pieces.piece_to_id("▁" + word))
            for row, words in enumerate(CONCEPTS)
            for word in words
        ]
        known = [(row, piece) for row, piece in pairs if piece != prompter.pieces.unk_id()]
        self.concepts = [row for row, _ in known]
        self.pieces = [piece for _, piece in known]
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.full((len(known),), -2.0))
        self.numbers = nn.Linear(hidden, GEOMETRY + MAX_SHAPES)

    def forward(self, tokens: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image tokens (n, tokens, hidden), all embeddings -> words, geometry and order.

        Shapes (n, tokens, words), (n, tokens, 6) and (n, tokens, `MAX_SHAPES`); words and order
        are logits.
        """
        words = F.normalize(embeddings[self.pieces], dim=-1)
        seen = F.rms_norm(tokens, tokens.shape[-1:])
        geometry, order = self.numbers(seen).split([GEOMETRY, MAX_SHAPES], -1)
        return self.scale * (seen @ words.T) + self.bias, geometry, order


def alignment_loss(
    reader: TokenReader, said: tuple[Tensor, Tensor, Tensor], batch: ImageBatch, known: Facts
) -> tuple[Tensor, dict[str, float]]:
    """The loss of what was read, and how much of it was right where a shape is shown.

    `known`: the facts about the batch's shapes. An image token covers two by two patches, and
    shows the shape that most of it belongs to.
    """
    owners = batch.owners(GRID // 2)
    true = known.at(owners)
    shown = true.known
    words, geometry, order = said
    wanted = true.concepts[..., reader.concepts]
    losses = F.binary_cross_entropy_with_logits(words, wanted.float(), reduction="none").sum(-1)
    share = shares(owners)
    on = share / share.sum().clamp(min=1)
    # Tokens without a shape have no words; they are many, so they count less in all.
    weight = 0.7 * on + 0.3 * ~shown / (~shown).sum().clamp(min=1)
    off = F.smooth_l1_loss(geometry, true.geometry, beta=0.1, reduction="none").mean(-1)
    told = F.cross_entropy(order.flatten(0, 1), true.order.flatten(), reduction="none")
    scores = {
        "words": float(((words > 0) == wanted)[shown].float().mean()),
        "off": float((geometry - true.geometry)[shown].abs().mean().detach()),
    }
    loss = (losses * weight).sum() + 2.0 * (off * on).sum()
    return loss + 0.5 * (told * on.flatten()).sum(), scores
