"""Stage 0: what stands in for CLIP's pre-training.

The releases start from OpenAI's CLIP, which has seen 400 million images with captions. A tower
this small has no such start, so it first learns to *see*: a throw-away linear head predicts, from
the features of every patch, what lies under it. The supervision is far denser than a caption's
and needs no language model.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mvlm.training.image_store import GRID, ImageBatch, shares
from mvlm.training.world.questions import in_mention_order
from mvlm.training.world.scene import COLOURS, MAX_SHAPES, SHAPES, Scene, Shape

NAMES = len(SHAPES) * len(COLOURS)
PARTS = {
    "shape": len(SHAPES) + 1,
    "colour": len(COLOURS) + 1,
    "cover": 9,
    "centre": 1,
    "geometry": 6,
    "place": 2,
    "rank": 6,
    "order": MAX_SHAPES,
    "direction": 2,
    "corner": 5,
}
#: How far two shapes' places must differ before one counts as further left, as a fraction.
CLEAR = 0.04
#: Places from 0 to 1, times this, have about unit variance.
SPREAD = 4.0


class PatchHead(nn.Module):
    """The throw-away head: patch features (n, patches, width) -> predictions by name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Linear(width, sum(PARTS.values()))
        self.whole = nn.Linear(width, MAX_SHAPES + 1 + NAMES)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Predictions per patch for the names of `PARTS`, per image for count and names."""
        parts = self.patch(features).split(list(PARTS.values()), -1)
        count, names = self.whole(features.mean(1)).split([MAX_SHAPES + 1, NAMES], -1)
        return dict(zip(PARTS, parts, strict=True)) | {"count": count, "names": names}


def patch_targets(batch: ImageBatch) -> dict[str, Tensor]:
    """What the head should say about the images of a batch."""
    scenes, grid = batch.scenes, GRID
    n = len(scenes)
    table = torch.zeros(n, MAX_SHAPES + 1, 15)
    count = torch.zeros(n, dtype=torch.long)
    names = torch.zeros(n, NAMES)
    centre = torch.zeros(n, grid, grid)
    for row, scene in enumerate(scenes):
        count[row] = len(scene.shapes)
        ranks, order = ranks_of(scene), in_mention_order(scene)
        for i, shape in enumerate(scene.shapes):
            kind, colour = SHAPES.index(shape.kind), COLOURS.index(shape.colour)
            numbers = [*geometry_of(scene, shape), *ranks[i], order.index(shape)]
            table[row, i + 1] = torch.tensor([kind + 1, colour + 1, *numbers])
            names[row, kind * len(COLOURS) + colour] = 1
            centre[row, min(grid - 1, int(shape.y * grid)), min(grid - 1, int(shape.x * grid))] = 1
    owners = batch.owners(grid)
    own = table[torch.arange(n)[:, None], owners]
    at = (torch.arange(grid) + 0.5) / grid
    places = torch.stack([at.repeat(grid), at.repeat_interleave(grid)], -1)
    return {
        "shape": own[..., 0].long(),
        "colour": own[..., 1].long(),
        "share": shares(owners),
        "cover": (batch.squares(grid) > 0).float(),
        "centre": centre.view(n, -1, 1),
        "geometry": own[..., 2:8],
        "place": ((places - 0.5) * SPREAD).expand(n, -1, -1),
        "rank": own[..., 8:14],
        "order": own[..., 14].long(),
        "count": count,
        "names": names,
        "direction": batch.edges[..., :2].reshape(n, -1, 2) / 100,
        "corner": batch.edges[..., 2].reshape(n, -1).long(),
    }


def geometry_of(scene: Scene, shape: Shape) -> list[float]:
    """Where a shape is in the padded square and in the image, its span and the root of its area.

    All are scaled to about unit variance; the lengths are logarithms, as sizes compare by ratio.
    """
    places = (shape.x, shape.y, *scene.in_image(shape))
    lengths = (shape.span, shape.area**0.5)
    return [
        *((place - 0.5) * SPREAD for place in places),
        *(1.5 * math.log(max(length, 0.02) / 0.2) for length in lengths),
    ]


def ranks_of(scene: Scene) -> list[list[float]]:
    """Per shape: leftmost, rightmost, topmost, bottommost, biggest, smallest; -1 if in doubt."""
    result = []
    for shape in scene.shapes:
        others = [other for other in scene.shapes if other is not shape]
        row = [
            _verdict([o.x - shape.x for o in others], CLEAR),
            _verdict([shape.x - o.x for o in others], CLEAR),
            _verdict([o.y - shape.y for o in others], CLEAR),
            _verdict([shape.y - o.y for o in others], CLEAR),
            _verdict([float(shape.is_bigger_than(o)) - o.is_bigger_than(shape) for o in others], 0),
            _verdict([float(o.is_bigger_than(shape)) - shape.is_bigger_than(o) for o in others], 0),
        ]
        result.append(row)
    return result


def _verdict(leads: list[float], margin: float) -> float:
    if all(lead > margin for lead in leads):
        return 1.0
    return 0.0 if any(lead < -margin for lead in leads) else -1.0


def pretraining_loss(said: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
    """The weighted sum of the heads' losses."""
    on = wanted["share"] / wanted["share"].sum().clamp(min=1)
    ground = (wanted["shape"] == 0).float()
    # Background patches are many and easy: they weigh less than the shapes' in all.
    weight = 0.6 * on + 0.4 * ground / ground.sum()
    shape = F.cross_entropy(
        said["shape"].flatten(0, 1), wanted["shape"].flatten(), reduction="none"
    )
    colour = F.cross_entropy(
        said["colour"].flatten(0, 1), wanted["colour"].flatten(), reduction="none"
    )
    geometry = F.smooth_l1_loss(said["geometry"], wanted["geometry"], reduction="none", beta=0.1)
    known = (wanted["rank"] >= 0).float() * on[..., None]
    rank = F.binary_cross_entropy_with_logits(
        said["rank"], wanted["rank"].clamp(min=0), reduction="none"
    )
    order = F.cross_entropy(
        said["order"].flatten(0, 1), wanted["order"].flatten(), reduction="none"
    )
    corner = F.cross_entropy(
        said["corner"].flatten(0, 1), wanted["corner"].flatten(), reduction="none"
    )
    has_corner = torch.where(wanted["corner"].flatten() > 0, 1.0, 0.25)
    # Only patches that an outline crosses have a direction.
    crossed = (wanted["direction"].abs().sum(-1) > 0).float()
    direction = F.smooth_l1_loss(said["direction"], wanted["direction"], reduction="none", beta=0.2)
    return (
        (shape * weight.flatten()).sum()
        + (colour * weight.flatten()).sum()
        + 0.5 * F.binary_cross_entropy_with_logits(said["cover"], wanted["cover"])
        + 3.0 * F.binary_cross_entropy_with_logits(said["centre"], wanted["centre"])
        + 2.0 * (geometry.mean(-1) * on).sum()
        # Where a patch is cannot be told from what is in it, and the projector's convolutions
        # are blind to it: unless the features say so, the decoder never learns left from right.
        + F.smooth_l1_loss(said["place"], wanted["place"], beta=0.1)
        + (rank * known).sum() / 6
        + 0.5 * (order * on.flatten()).sum()
        + (corner * has_corner).sum() / has_corner.sum()
        + (direction.sum(-1) * crossed).sum() / crossed.sum().clamp(min=1)
        + 0.3 * F.cross_entropy(said["count"], wanted["count"])
        + 2.0 * F.binary_cross_entropy_with_logits(said["names"], wanted["names"])
    )


@torch.no_grad()
def pretraining_scores(said: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """Accuracies on whole images (count) and on patches inside shapes (the others)."""
    inside = wanted["shape"] > 0
    count = (said["count"].argmax(-1) == wanted["count"]).float().mean()
    known = wanted["rank"] >= 0
    rank = ((said["rank"] > 0) == (wanted["rank"] > 0))[known & inside[..., None]].float().mean()
    result = {"count": float(count), "rank": float(rank)}
    for part in ("shape", "colour", "order"):
        hit = said[part].argmax(-1) == wanted[part]
        result[part] = float(hit[inside].float().mean())
    return result
