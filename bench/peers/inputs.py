"""What all tools are given: the same made-up prompt and the same image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mvlm.bench.peers.runner import RgbImage, Setup
from mvlm.bench.random_tokens import random_tokens

_IMAGE = Path("bundled", "images", "demo.png")


def prompt(setup: Setup, positions: int) -> list[int]:
    """Make up a prompt of so many ids, the first of which starts a sequence."""
    return [setup.bos, *words(setup, positions - 1)]


def words(setup: Setup, count: int) -> list[int]:
    """Make up so many ordinary ids; the same ones each time."""
    return random_tokens(setup.vocabulary, count)


def bundled_image(setup: Setup) -> RgbImage:
    """Return the bundled image in the tower's size, so that no tool has to scale it."""
    from PIL import Image

    import mvlm.models

    assert setup.image is not None
    size = setup.image.size
    with Image.open(Path(next(iter(mvlm.models.__path__))) / _IMAGE) as file:
        return np.asarray(file.convert("RGB").resize((size, size)), np.uint8)
