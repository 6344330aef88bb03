"""The independent images: as varied as promised, true to their truth, and the same each time."""

from __future__ import annotations

import io
from collections import Counter
from itertools import combinations
from random import Random

import numpy as np
import pytest
from PIL import Image

from tests.examination.backgrounds import BACKGROUNDS
from tests.examination.drawer import STYLES, Drawing, drawings
from tests.examination.outlines import Disc, Polygon, outline
from tests.examination.palettes import PALETTES, difference
from tests.examination.rasters import COVERAGE, CRISP, FINER, Raster
from tests.examination.truth import COLOURS, SHAPES


@pytest.fixture(scope="module")
def some() -> list[Drawing]:
    return list(drawings(72, seed=5))


def test_same_seed_same_bytes() -> None:
    first, again, other = (list(drawings(12, seed)) for seed in (1, 1, 2))
    assert first == again
    assert [d.data for d in first] != [d.data for d in other]


def test_everything_occurs(some: list[Drawing]) -> None:
    figures = [figure for drawing in some for figure in drawing.truth.figures]
    assert {figure.kind for figure in figures} == set(SHAPES)
    assert {figure.colour for figure in figures} == set(COLOURS)
    assert {len(drawing.truth.figures) for drawing in some} == {1, 2, 3, 4}
    pairs = Counter((d.traits["style"], d.traits["background"]) for d in some)
    assert len(pairs) == len(STYLES) * len(BACKGROUNDS)
    assert {d.traits["format"][:4] for d in some} == {"png", "jpeg"}


def test_sizes(some: list[Drawing]) -> None:
    for drawing in some:
        truth = drawing.truth
        assert Image.open(io.BytesIO(drawing.data)).size == (truth.width, truth.height)
        short, long = sorted((truth.width, truth.height))
        assert short >= 60 and long <= 2000 and long <= 3.1 * short
        for figure in truth.figures:
            assert figure.size >= max(14, 0.1 * short) * 0.9
            assert figure.left >= 0 and figure.right <= truth.width
            assert figure.top >= 0 and figure.bottom <= truth.height


def test_figures_are_apart(some: list[Drawing]) -> None:
    for drawing in some:
        for one, other in combinations(drawing.truth.figures, 2):
            across = max(one.left, other.left) - min(one.right, other.right)
            down = max(one.top, other.top) - min(one.bottom, other.bottom)
            assert max(across, down) > 0


def test_box_holds_the_figure_in_its_colour(some: list[Drawing]) -> None:
    for drawing in some:
        if drawing.traits["style"] not in ("crisp", "smooth", "vector"):
            continue
        pixels = np.asarray(Image.open(io.BytesIO(drawing.data)).convert("RGB"))
        for figure in drawing.truth.figures:
            colour = PALETTES[drawing.traits["palette"]][figure.colour]
            x, y = (round(value) for value in figure.middle)
            if figure.kind == "triangle":  # whose middle may lie outside
                box = pixels[round(figure.top) : round(figure.bottom)]
                inside = box[:, round(figure.left) : round(figure.right)].reshape(-1, 3)
                off = np.abs(inside - np.asarray(colour, float)).max(axis=1)
                assert (off < 60).mean() > 0.15
            else:
                assert np.abs(pixels[y, x] - np.asarray(colour, float)).max() < 60


@pytest.mark.parametrize("raster", [CRISP, FINER, COVERAGE])
@pytest.mark.parametrize("kind", SHAPES)
def test_rasters_agree_on_areas(raster: Raster, kind: str) -> None:
    shape = outline(kind, Random(3)).moved(60.3, 59.6, 80)
    filled = np.asarray(raster.fill(shape, (0, 0, 120, 120)), float) / 255
    assert filled.sum() == pytest.approx(shape.area, rel=0.06)
    line = np.asarray(raster.line(shape, 4, (0, 0, 120, 120)), float) / 255
    corners = shape.corners()
    length = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1).sum()
    assert line.sum() == pytest.approx(4 * length, rel=0.15)


def test_areas() -> None:
    assert Disc(0, 0, 2).area == pytest.approx(12.566, abs=1e-3)
    assert Polygon(np.array([(0, 0), (4, 0), (0, 3)], float)).area == pytest.approx(6)


def test_colour_difference() -> None:
    assert difference((255, 255, 255), (0, 0, 0)) == pytest.approx(100, abs=0.1)
    assert difference((9, 9, 9), (9, 9, 9)) == 0
    # Neighbours of each palette can be told apart.
    for palette in PALETTES.values():
        for one, other in combinations(palette.values(), 2):
            assert difference(one, other) == pytest.approx(difference(other, one))
            assert difference(one, other) > 12
