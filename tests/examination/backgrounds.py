"""What figures are drawn on: white, grey, black, a colour, a gradient, or paper."""

from __future__ import annotations

import math
from random import Random

import numpy as np
from PIL import Image, ImageColor

from tests.examination.palettes import RGB

BACKGROUNDS = ("white", "grey", "black", "coloured", "gradient", "paper")

_COLOURED = (
    "aliceblue", "beige", "honeydew", "lavender", "mistyrose", "lightblue", "palegreen",
    "peachpuff", "plum", "thistle", "khaki", "pink", "tan", "turquoise", "cyan", "hotpink",
    "teal", "navy", "midnightblue", "darkslategray", "saddlebrown", "maroon", "indigo", "olive",
    "steelblue", "cornsilk", "paleturquoise", "rosybrown",
)  # fmt: skip


def tones(kind: str, rng: Random) -> tuple[RGB, ...]:
    """The colours that a background runs between; one colour if it is plain."""
    if kind == "white":
        return (rng.choice(((255, 255, 255), (255, 255, 255), (250, 250, 250))),)
    if kind == "grey":
        return (_grey(rng.randint(60, 220)),)
    if kind == "black":
        return (_grey(rng.choice((0, 0, rng.randint(5, 40)))),)
    if kind == "coloured":
        return (_named(rng.choice(_COLOURED)),)
    if kind == "paper":
        warm = rng.randint(0, 22)
        light = rng.randint(225, 248)
        return ((light, light - warm // 3, light - warm),)
    ends = [_named(rng.choice((*_COLOURED, "white", "gray", "black"))) for _ in range(2)]
    # Halfway towards each other: the gradient is meant to be soft.
    middle = [(a + b) / 2 for a, b in zip(*ends, strict=True)]
    soft = [tuple(round((v + m) / 2) for v, m in zip(end, middle, strict=True)) for end in ends]
    return tuple((r, g, b) for r, g, b in soft)


def background(
    kind: str, colours: tuple[RGB, ...], size: tuple[int, int], rng: Random
) -> Image.Image:
    """An image of that size in those tones, with nothing on it."""
    if kind == "gradient":
        return _gradient(colours[0], colours[1], size, rng)
    canvas = Image.new("RGB", size, colours[0])
    return _grained(canvas, rng) if kind == "paper" else canvas


def _gradient(begin: RGB, end: RGB, size: tuple[int, int], rng: Random) -> Image.Image:
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width - 0.5, y / height - 0.5
    if rng.random() < 0.3:
        share = np.hypot(x, y) / math.sqrt(0.5)
    else:
        angle = rng.uniform(0, 2 * math.pi)
        along = x * math.cos(angle) + y * math.sin(angle)
        share = (along - along.min()) / (along.max() - along.min())
    mixed = share[..., None] * np.array(end) + (1 - share[..., None]) * np.array(begin)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _grained(canvas: Image.Image, rng: Random) -> Image.Image:
    """With the blotches and the grain of photographed paper, the grain finer than a figure."""
    noise = np.random.default_rng(rng.getrandbits(32))
    width, height = canvas.size
    blotches = Image.fromarray(noise.normal(0, rng.uniform(1, 4), (6, 6)).astype(np.float32))
    uneven = np.asarray(blotches.resize(canvas.size, Image.Resampling.BICUBIC))
    grain = noise.normal(0, rng.uniform(1, 6), (height, width)).astype(np.float32)
    lit = np.asarray(canvas, np.float32) + (uneven + grain)[..., None]
    return Image.fromarray(np.rint(lit.clip(0, 255)).astype(np.uint8))


def _grey(level: int) -> RGB:
    return level, level, level


def _named(name: str) -> RGB:
    red, green, blue = ImageColor.getrgb(name)[:3]
    return red, green, blue
