"""Greedy answers from the torch model, in batches of conversations about different images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from mvlm.training.image_store import normalize
from mvlm.training.model.clip import ClipTower
from mvlm.training.model.mobilevlm import MobileVlm
from mvlm.training.prompt import EOS, IMAGE, Prompter
from mvlm.training.world.render import fit
from mvlm.training.world.scene import Array

MAX_NEW_TOKENS = 64


@torch.no_grad()
def answers(
    tower: ClipTower, model: MobileVlm, prompter: Prompter,
    images: Sequence[Image.Image], prompts: Sequence[list[int]], batch: int = 32,
) -> list[str]:  # fmt: skip
    """The greedy answer to each prompt (ids with one `IMAGE`) about the image given with it."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    result = [""] * len(prompts)
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        pixels = np.stack([_pixels(images[i], tower.config.image_size) for i in chosen])
        tokens = model.model.mm_projector(tower(normalize(torch.from_numpy(pixels).float())))
        said = _decode(model, tokens, [prompts[i] for i in chosen])
        for index, ids in zip(chosen, said, strict=True):
            result[index] = prompter.decode(ids)
    return result


def _pixels(image: Image.Image, side: int) -> Array:
    pixels: Array = np.asarray(fit(image.convert("RGB"), side)).transpose(2, 0, 1)
    return pixels


def _decode(model: MobileVlm, image: torch.Tensor, prompts: Sequence[list[int]]) -> list[list[int]]:
    body = model.model
    rows = []
    for tokens, ids in zip(image, prompts, strict=True):
        at = ids.index(IMAGE)
        before, after = torch.tensor(ids[:at]), torch.tensor(ids[at + 1 :])
        rows.append(torch.cat([body.embed_tokens(before), tokens, body.embed_tokens(after)]))
    lengths = torch.tensor([len(row) for row in rows])
    longest = int(lengths.max())
    # Padding goes in front: the last column is then the last token of every row.
    x = torch.stack(
        [torch.cat([row.new_zeros(longest - len(row), row.shape[1]), row]) for row in rows]
    )
    pad = longest - lengths
    columns = torch.arange(longest)
    positions = (columns - pad[:, None]).clamp(min=0)
    real = columns >= pad[:, None]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    mask = (causal & real[:, None, :]) | torch.eye(longest, dtype=torch.bool)
    hidden, past = body(x, positions, mask[:, None])
    said: list[list[int]] = [[] for _ in rows]
    open_rows = torch.ones(len(rows), dtype=torch.bool)
    for step in range(MAX_NEW_TOKENS):
        best = model.lm_head(hidden[:, -1]).argmax(-1)
        open_rows &= best != EOS
        if not open_rows.any():
            break
        for row in open_rows.nonzero().flatten().tolist():
            said[row].append(int(best[row]))
        real = torch.cat([real, torch.ones(len(rows), 1, dtype=torch.bool)], 1)
        at_ = (lengths + step)[:, None]
        hidden, past = body(body.embed_tokens(best[:, None]), at_, real[:, None, None], past)
    return said
