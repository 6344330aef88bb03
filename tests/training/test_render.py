"""Images: size, place, colour and labels agree with the scene; same seed, same image."""

import numpy as np
import pytest

from mvlm.training.image_store import turn_scene
from mvlm.training.samples import IMAGES, write
from mvlm.training.world.render import (
    CLEAR_PIXELS,
    PAD_COLOUR,
    edge_map,
    fit,
    label_map,
    random_colour,
    render,
)
from mvlm.training.world.scene import COLOURS, random_scene


def a_scene(seed, shapes=1):
    rng = np.random.default_rng(seed)
    while True:
        scene = random_scene(rng)
        if len(scene.shapes) == shapes:
            return scene


def test_random_sizes_leave_every_shape_clear():
    rng = np.random.default_rng(3)
    for scene in (random_scene(rng) for _ in range(60)):
        longest = max(render(scene, rng).size)
        assert longest >= 60
        assert all(shape.span * longest >= CLEAR_PIXELS for shape in scene.shapes)


@pytest.mark.parametrize("longest", [60, 333, 2000])
def test_the_longer_side_is_as_asked(longest):
    scene = a_scene(0)
    image = render(scene, np.random.default_rng(0), longest)
    assert max(image.size) == longest
    assert image.mode == "RGB"


def test_same_seed_same_image():
    scene = a_scene(1, shapes=3)
    one, other = (render(scene, np.random.default_rng(9)) for _ in range(2))
    assert one.tobytes() == other.tobytes()


def test_fit_pads_with_the_clip_mean_colour():
    scene = a_scene(2)
    image = fit(render(scene, np.random.default_rng(1), 200).resize((200, 100)), 144)
    assert image.size == (144, 144)
    assert image.getpixel((72, 4)) == PAD_COLOUR


def test_labels_cover_the_shapes_where_they_are():
    for seed in range(30):
        scene = a_scene(seed, shapes=3)
        labels = label_map(scene, 72)
        for index, shape in enumerate(scene.shapes):
            rows, columns = np.nonzero(labels == index + 1)
            assert len(rows) > 0
            middle = (
                (columns.min() + columns.max() + 1) / 144,
                (rows.min() + rows.max() + 1) / 144,
            )
            assert middle == pytest.approx((shape.x, shape.y), abs=0.02)
            assert len(rows) / 72**2 == pytest.approx(shape.area, rel=0.4, abs=0.002)


def test_edges_lie_around_the_shapes_and_corners_on_them():
    for seed in range(30):
        scene = a_scene(seed, shapes=2)
        edges = edge_map(scene, 12)
        assert edges.dtype == np.int8
        assert np.abs(edges[..., :2]).max() <= 100
        kinds = {shape.kind for shape in scene.shapes}
        found = set(np.unique(edges[..., 2])) - {0}
        allowed = {"circle": set(), "square": {1}, "triangle": {2}, "star": {3, 4}}
        assert found <= set().union(*(allowed[kind] for kind in kinds))
        assert bool(found) == (kinds != {"circle"})


def test_colours_stay_apart():
    rng = np.random.default_rng(0)
    for name in COLOURS:
        for _ in range(200):
            red, green, blue = random_colour(name, rng)
            assert max(red, green, blue) - min(red, green, blue) > 40
            if name == "red":
                assert red > green + 40 and red > blue + 40
            if name == "green":
                assert green > red and green > blue
            if name == "blue":
                assert blue > red and blue > green


def test_rotating_a_scene_rotates_its_shapes():
    scene = a_scene(3, shapes=2)
    turned = turn_scene(scene, mirror=True, flip=False, swap=True)
    assert (turned.width, turned.height) == (scene.height, scene.width)
    for before, after in zip(scene.shapes, turned.shapes, strict=True):
        assert (after.x, after.y) == (before.y, 1 - before.x)
        assert after.name == before.name


def test_sample_images_are_small_png(tmp_path):
    write(tmp_path)
    for name in IMAGES:
        data = (tmp_path / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) < 60_000
