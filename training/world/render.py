"""How a scene is drawn: an image of any size in one of many styles, as other people might draw it.

All that another artist could do otherwise is random here: the image's size, the background,
the exact RGB of a named colour, filled or outlined, line width, anti-aliasing, JPEG or not.
"""

from __future__ import annotations

import colorsys
import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mvlm.training.world.scene import COLOURS, Array, Scene, Shape

RGB = tuple[int, int, int]

#: A shape is drawn at least so wide: a star of eight pixels looks like a circle to anybody.
CLEAR_PIXELS = 14

#: RGB values that people use for the six names: CSS, matplotlib, Material, flat-UI palettes.
PALETTE: dict[str, tuple[str, ...]] = {
    "red": (
        "ff0000",
        "e00000",
        "c80000",
        "d62728",
        "f44336",
        "e74c3c",
        "dc143c",
        "b22222",
        "8b0000",
        "cc3333",
        "ff3030",
        "e6194b",
        "ea4335",
    ),
    "green": (
        "008000",
        "00ff00",
        "00aa00",
        "2ca02c",
        "4caf50",
        "2ecc71",
        "228b22",
        "32cd32",
        "006400",
        "3cb44b",
        "34a853",
        "00c800",
        "27ae60",
        "66cc66",
    ),
    "blue": (
        "0000ff",
        "0000c8",
        "1f77b4",
        "2196f3",
        "3498db",
        "4169e1",
        "1e90ff",
        "00008b",
        "4363d8",
        "4285f4",
        "0066cc",
        "2040e0",
        "4682b4",
        "000080",
    ),
    "yellow": (
        "ffff00",
        "ffd700",
        "ffeb3b",
        "f1c40f",
        "ffe119",
        "fff000",
        "e6e600",
        "ffee58",
        "f0e000",
        "ffff66",
        "fdd835",
    ),
    "orange": (
        "ffa500",
        "ff8c00",
        "ff7f0e",
        "ff9800",
        "e67e22",
        "f58231",
        "ff8000",
        "fb8c00",
        "ff7f00",
        "f39c12",
        "ff7518",
    ),
    "purple": (
        "800080",
        "a020f0",
        "9467bd",
        "9c27b0",
        "9b59b6",
        "911eb4",
        "8a2be2",
        "9400d3",
        "6a0dad",
        "9932cc",
        "4b0082",
        "7e22ce",
        "663399",
        "9370db",
    ),
}

#: Hue (degrees), saturation and value ranges that count as the name, for colours off the palette.
HSV_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-11, 7), (0.7, 1.0), (0.55, 1.0)),
    "green": ((88, 155), (0.45, 1.0), (0.35, 1.0)),
    "blue": ((203, 247), (0.55, 1.0), (0.45, 1.0)),
    "yellow": ((50, 63), (0.6, 1.0), (0.85, 1.0)),
    "orange": ((23, 39), (0.75, 1.0), (0.88, 1.0)),
    "purple": ((268, 305), (0.4, 1.0), (0.4, 0.95)),
}

#: A shape's ink differs from what lies behind it by at least this Euclidean distance in RGB.
MIN_CONTRAST = 95.0


def random_colour(name: str, rng: np.random.Generator) -> RGB:
    """An RGB value that people would call by that name."""
    if rng.random() < 0.65:
        code = PALETTE[name][rng.integers(len(PALETTE[name]))]
        exact = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)])
        shake = rng.integers(-8, 9, 3) if rng.random() < 0.5 else 0
        red, green, blue = np.clip(exact + shake, 0, 255)
        return int(red), int(green), int(blue)
    hue, saturation, value = (rng.uniform(*limits) for limits in HSV_RANGES[name])
    red, green, blue = colorsys.hsv_to_rgb((hue % 360) / 360, saturation, value)
    return int(255 * red), int(255 * green), int(255 * blue)


def random_longest(scene: Scene, rng: np.random.Generator, most: int) -> int:
    """Pixels for the longer side, 60 to `most`, but so many that every shape is clear."""
    drawn = int(math.exp(rng.uniform(math.log(60), math.log(most))))
    return max(drawn, *(math.ceil(CLEAR_PIXELS / shape.span) for shape in scene.shapes), 60)


def render(scene: Scene, rng: np.random.Generator, longest: int | None = None) -> Image.Image:
    """Draws the scene as RGB, `longest` pixels on the longer side (default: random but clear)."""
    if longest is None:
        longest = random_longest(scene, rng, 460)
    size = (max(1, round(scene.width * longest)), max(1, round(scene.height * longest)))
    inks = [random_colour(shape.colour, rng) for shape in scene.shapes]
    image, behind = _background(size, inks, rng)
    style = _SceneStyle(rng)
    for shape, ink in zip(scene.shapes, inks, strict=True):
        _draw_shape(image, scene, shape, ink, behind, longest, style, rng)
    return _degrade(image, rng)


def label_map(scene: Scene, cells: int) -> Array:
    """Which shape covers each cell of the padded square.

    Returns (cells, cells) uint8: 0 for none, i + 1 for shape i.
    """
    scale = 4
    canvas = Image.new("L", (cells * scale, cells * scale), 0)
    draw = ImageDraw.Draw(canvas)
    for index, shape in enumerate(scene.shapes):
        draw.polygon(_corners(shape, cells * scale, 0.0, (0.0, 0.0)), fill=index + 1)
    blocks = np.asarray(canvas).reshape(cells, scale, cells, scale).transpose(0, 2, 1, 3)
    fine = blocks.reshape(cells, cells, scale * scale)
    votes = np.stack(
        [(fine == i).sum(-1) for i in range(1, len(scene.shapes) + 1)]
        or [np.zeros((cells, cells), int)],
        -1,
    )
    # A third of a cell is enough: a small shape must not vanish between cells.
    return np.where(votes.max(-1) * 3 >= scale * scale, votes.argmax(-1) + 1, 0).astype(np.uint8)


def edge_map(scene: Scene, grid: int) -> Array:
    """What the outlines do in each patch: (grid, grid, 3) int8.

    The first two channels are 100 * (cos, sin) of twice the mean direction of the edges there (a
    direction and its opposite are the same edge), the third is the corner in it: 0 none, 1 of a
    square, 2 of a triangle, 3 a star's point, 4 a star's notch.
    """
    sums = np.zeros((grid, grid, 3))
    corner = np.zeros((grid, grid), np.int8)
    for shape in scene.shapes:
        points = np.array(_corners(shape, 1.0, 0.0, (0.0, 0.0)))
        for index, (start, end) in enumerate(zip(points, np.roll(points, -1, 0), strict=True)):
            dx, dy = end - start
            twice = 2 * math.atan2(dy, dx)
            steps = np.linspace(0, 1, 2 + int(math.hypot(dx, dy) * 4 * grid))[:, None]
            at = np.clip((start + steps * (end - start)) * grid, 0, grid - 1).astype(int)
            weight = math.hypot(dx, dy) / len(steps)
            np.add.at(
                sums, (at[:, 1], at[:, 0]),
                (weight * math.cos(twice), weight * math.sin(twice), weight),
            )  # fmt: skip
            if shape.kind != "circle":
                kind = {"square": 1, "triangle": 2, "star": 3 + index % 2}[shape.kind]
                corner[at[0, 1], at[0, 0]] = kind
    directions = 100 * sums[..., :2] / np.maximum(sums[..., 2:], 1e-9)
    return np.concatenate([directions.astype(np.int8), corner[..., None]], -1)


class _SceneStyle:
    """What the shapes of one image usually have in common."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.mixed = rng.random() < 0.25
        self.form = self.draw_form(rng)
        self.line = rng.uniform(0.04, 0.45)
        self.smooth = int(rng.choice((1, 2, 4), p=(0.4, 0.2, 0.4)))
        self.outline_grey = int(rng.choice((0, 0, 0, 255, 40, 128)))

    @staticmethod
    def draw_form(rng: np.random.Generator) -> str:
        return str(rng.choice(("filled", "outlined", "both"), p=(0.52, 0.26, 0.22)))


def _corners(
    shape: Shape, longest: float, inset: float, origin: tuple[float, float], scale: int = 1
) -> list[tuple[float, float]]:
    """The outline in pixels, its edges moved inwards by `inset` pixels."""
    *points, (mx, my) = shape.outline
    shrink = max(0.0, 1 - inset / (shape.inradius * longest))
    return [
        (
            ((shape.x + px * shrink - mx) * longest - origin[0]) * scale,
            ((shape.y + py * shrink - my) * longest - origin[1]) * scale,
        )
        for px, py in points
    ]


def _draw_shape(
    image: Image.Image, scene: Scene, shape: Shape, ink: RGB, behind: Array, longest: int,
    style: _SceneStyle, rng: np.random.Generator,
) -> None:  # fmt: skip
    form = style.draw_form(rng) if style.mixed else style.form
    if form == "both":
        edge = _edge_colour(shape, ink, style, rng)
        line = _line_width(shape, longest, 0.5 * style.line, 0.35)
        _paste(image, scene, shape, edge, 0.0, 0.0, longest, style.smooth)
        _paste(image, scene, shape, ink, line, 0.0, longest, style.smooth)
    elif form == "outlined":
        line = _line_width(shape, longest, style.line, 0.6)
        _paste(image, scene, shape, ink, 0.0, line, longest, style.smooth)
    else:
        _paste(image, scene, shape, ink, 0.0, 0.0, longest, style.smooth)


def _line_width(shape: Shape, longest: int, fraction: float, most: float) -> float:
    """A width in pixels that survives the model's own resizing (1.2 pixels of 144 there)."""
    inradius = shape.inradius * longest
    visible = max(1.0, 1.2 * longest / 144)
    return min(max(visible, fraction * inradius), most * inradius)


def _edge_colour(shape: Shape, ink: RGB, style: _SceneStyle, rng: np.random.Generator) -> RGB:
    """An outline that differs from the fill: grey, a darker shade, or another colour of the six."""
    choice = rng.random()
    if choice < 0.6:
        grey = style.outline_grey
        return (grey, grey, grey)
    if choice < 0.75:
        return (ink[0] // 2, ink[1] // 2, ink[2] // 2)
    others = [name for name in COLOURS if name != shape.colour]
    return random_colour(others[rng.integers(len(others))], rng)


def _paste(
    image: Image.Image, scene: Scene, shape: Shape, ink: RGB, inset: float, ring: float,
    longest: int, smooth: int,
) -> None:  # fmt: skip
    """Fills the outline moved in by `inset`; with `ring` only a rim of that many pixels."""
    origin = ((longest - image.width) / 2, (longest - image.height) / 2)
    points = _corners(shape, longest, inset, origin)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    left, top = math.floor(min(xs)) - 1, math.floor(min(ys)) - 1
    size = (math.ceil(max(xs)) + 2 - left, math.ceil(max(ys)) + 2 - top)
    corner = (origin[0] + left, origin[1] + top)
    mask = Image.new("L", (size[0] * smooth, size[1] * smooth), 0)
    draw = ImageDraw.Draw(mask)
    draw.polygon(_corners(shape, longest, inset, corner, smooth), fill=255)
    if ring:
        draw.polygon(_corners(shape, longest, inset + ring, corner, smooth), fill=0)
    if smooth > 1:
        mask = mask.resize(size, Image.Resampling.BOX)
    image.paste(ink, (left, top, left + size[0], top + size[1]), mask)


def _background(
    size: tuple[int, int], inks: list[RGB], rng: np.random.Generator
) -> tuple[Image.Image, Array]:
    """A background from which all inks stand out, and its darkest and lightest colours (2, 3)."""
    for _ in range(40):
        first, second = _background_colours(rng)
        ends = np.stack([first, second, (first + second) / 2])
        gaps = np.linalg.norm(ends[None] - np.array(inks or [(999, 0, 0)])[:, None], axis=-1)
        if gaps.min() > MIN_CONTRAST:
            break
    else:
        grey = 255.0 if rng.random() < 0.5 else 0.0
        if inks and np.linalg.norm(np.array(inks) - grey, axis=-1).min() < MIN_CONTRAST:
            grey = 255.0 - grey
        first = second = np.full(3, grey)
    return _paint(size, first, second, rng), np.stack([first, second])


def _background_colours(rng: np.random.Generator) -> tuple[Array, Array]:
    choice = rng.random()
    if choice < 0.28:
        first: Array = np.full(3, 255.0)
    elif choice < 0.42:
        first = np.clip(rng.uniform(225, 255) + rng.uniform(-12, 12, 3), 0, 255)
    elif choice < 0.58:
        first = np.full(3, rng.uniform(40, 225))
    elif choice < 0.72:
        first = np.clip(rng.uniform(0, 45) + rng.uniform(-12, 12, 3), 0, 255)
    else:
        first = rng.uniform(0, 255, 3)
        if rng.random() < 0.5:  # pastel
            first = 255 - (255 - first) * 0.4
    if rng.random() < 0.78:
        return first, first
    if rng.random() < 0.6:
        return first, np.clip(first + rng.uniform(-70, 70, 3), 0, 255)
    return first, rng.uniform(0, 255, 3)


def _paint(
    size: tuple[int, int], first: Array, second: Array, rng: np.random.Generator
) -> Image.Image:
    """A plain field, a linear or radial gradient, or soft blotches between the two colours."""
    if np.array_equal(first, second):
        red, green, blue = (int(v) for v in first)
        return Image.new("RGB", size, (red, green, blue))
    kind = rng.random()
    if kind < 0.35:  # soft blotches
        field = rng.random((int(rng.integers(2, 9)), int(rng.integers(2, 9))))
        small = Image.fromarray((field * 255).astype(np.uint8))
        mix = np.asarray(small.resize(size, Image.Resampling.BILINEAR)) / 255.0
    else:
        x = np.linspace(0, 1, size[0])[None]
        y = np.linspace(0, 1, size[1])[:, None]
        if kind < 0.8:
            angle = rng.choice((0, math.pi / 2, rng.uniform(0, 2 * math.pi)))
            mix = x * math.cos(angle) + y * math.sin(angle)
        else:
            mix = np.hypot(x - rng.random(), y - rng.random())
        mix = (mix - mix.min()) / max(1e-6, float(mix.max() - mix.min()))
    field3 = first + mix[..., None] * (second - first)
    return Image.fromarray(field3.astype(np.uint8))


def _degrade(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Sensor noise, a slight blur and JPEG compression, each in some of the images."""
    if rng.random() < 0.14:
        grain = rng.normal(0, rng.uniform(2, 24), (image.height, image.width, 3))
        noisy = np.asarray(image) + grain
        image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    if rng.random() < 0.06:
        radius = rng.uniform(0.2, 0.008 * max(image.size) + 0.2)
        image = image.filter(ImageFilter.GaussianBlur(radius))
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        quality = int(rng.choice((20, 35, 50, 75, 85, 95)))
        image.save(buffer, "JPEG", quality=quality)
        image = Image.open(buffer).convert("RGB")
    return image


#: The CLIP mean colour, truncated to whole numbers, with which images are padded to a square.
PAD_COLOUR: RGB = (122, 116, 104)


def fit(image: Image.Image, side: int) -> Image.Image:
    """Pads an RGB image to a square and resizes it, as the model's preprocessing does."""
    longest = max(image.size)
    square = image
    if image.width != image.height:
        square = Image.new("RGB", (longest, longest), PAD_COLOUR)
        square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    return square.resize((side, side), Image.Resampling.BICUBIC)
