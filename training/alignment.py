"""Aligns image tokens with words before the decoder sees either.

The paper's first stage teaches a decoder that can read what image tokens mean, from captions. Ours
starts from nothing, and learns from captions alone far too slowly to look anything up. So the
projector first learns to say, in each image token, which words are true of the shape that it shows:
the token is drawn to the embeddings of those words and pushed away from the others, with a sigmoid
for each pair ("Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343, word by word).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mvlm.training.pictures import GRID, PictureBatch
from mvlm.training.prompt import Prompter
from mvlm.training.tower_pretraining import ranks_of
from mvlm.training.world.questions import place_name
from mvlm.training.world.scene import COLOURS, MAX_SHAPES, SHAPES

#: What can be true of a shape, and the words that say so. The ends and sizes are in the order of
#: `ranks_of`.
_KINDS = [(kind, kind + "s") for kind in SHAPES]
_COLOURS = [(colour, colour.capitalize()) for colour in COLOURS]
_ENDS = [("leftmost",), ("rightmost",), ("topmost", "highest"), ("lowest", "bottommost")]
_SIZES = [("biggest", "largest"), ("smallest",)]
_PLACES = [("top",), ("bottom",), ("left",), ("right",), ("center",)]
CONCEPTS = [*_KINDS, *_COLOURS, *_ENDS, *_SIZES, *_PLACES]


class WordMatcher(nn.Module):
    """Scores image tokens against words; only its scale and biases are thrown away afterwards."""

    def __init__(self, prompter: Prompter) -> None:
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

    def forward(self, tokens: Tensor, embeddings: Tensor) -> Tensor:
        """Image tokens (n, tokens, hidden), all embeddings -> logits (n, tokens, words)."""
        words = F.normalize(embeddings[self.pieces], dim=-1)
        alike = F.rms_norm(tokens, tokens.shape[-1:]) @ words.T
        return self.scale * alike + self.bias


def word_loss(matcher: WordMatcher, logits: Tensor, batch: PictureBatch) -> tuple[Tensor, float]:
    """The mean sigmoid loss over tokens that show a shape, and the share of words judged right."""
    true, shown = true_concepts(batch)
    wanted = true[..., matcher.concepts]
    losses = F.binary_cross_entropy_with_logits(logits, wanted.float(), reduction="none").sum(-1)
    # Tokens without a shape have no words; they are many, so they count less.
    weight = torch.where(shown, 1.0, 0.2)
    right = ((logits > 0) == wanted)[shown].float().mean()
    return (losses * weight).sum() / weight.sum(), float(right)


def true_concepts(batch: PictureBatch) -> tuple[Tensor, Tensor]:
    """What is true of the shape in each image token (n, tokens, concepts), and if one is there.

    An image token covers two by two patches, and shows the shape that most of it belongs to.
    """
    count, owner = len(batch.scenes), batch.owners(GRID // 2)
    table = torch.zeros(count, MAX_SHAPES + 1, len(CONCEPTS), dtype=torch.bool)
    for row, scene in enumerate(batch.scenes):
        for i, (shape, ranks) in enumerate(zip(scene.shapes, ranks_of(scene), strict=True)):
            place = (place_name(scene, shape) or "").split()
            table[row, i + 1] = torch.tensor(
                [kind == shape.kind for kind in SHAPES]
                + [colour == shape.colour for colour in COLOURS]
                + [rank == 1 and len(scene.shapes) > 1 for rank in ranks]
                + [words[0] in place for words in _PLACES]
            )
    return table[torch.arange(count)[:, None], owner], owner > 0
