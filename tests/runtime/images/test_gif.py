"""GIF: palettes, transparency, frames on canvases, extensions in any state, and damage."""

import numpy as np
import pytest

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image import load_image
from tests.runtime.images.gif_files import compressed, extension, frame, gif
from tests.runtime.images.oracle import by_opencv, ours

SIZE = WIDTH, HEIGHT = 13, 11
INDEXES = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH))
COLOURS = np.random.default_rng(1).bytes(3 * 256)
OTHERS = np.random.default_rng(2).bytes(3 * 256)
WHITE = [255, 255, 255]


def table(colours: bytes) -> np.ndarray:
    entries = np.frombuffer(colours, np.uint8).reshape(-1, 3)
    return np.vstack([entries, np.zeros((256, 3), np.uint8)])


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("local", [False, True])
def test_palettes(local: bool, interlaced: bool) -> None:
    own = frame(INDEXES, colours=OTHERS if local else b"", interlaced=interlaced)
    data = gif(own, SIZE, colours=COLOURS)
    np.testing.assert_array_equal(ours(data), table(OTHERS if local else COLOURS)[INDEXES])
    np.testing.assert_array_equal(by_opencv(data), ours(data))


def test_grey_palettes_in_any_order() -> None:
    for greys in (range(256), range(255, -1, -1)):
        colours = bytes(value for value in greys for _ in range(3))
        data = gif(frame(INDEXES), SIZE, colours=colours)
        np.testing.assert_array_equal(ours(data), table(colours)[INDEXES])


def test_indexes_without_an_entry_are_black() -> None:
    data = gif(frame(INDEXES, transparent=200), SIZE, colours=COLOURS[: 3 * 16])
    expected = table(COLOURS[: 3 * 16])[INDEXES]
    expected[INDEXES == 200] = WHITE
    np.testing.assert_array_equal(ours(data), expected)


@pytest.mark.parametrize("transparent", [0, 7, 255])
def test_a_transparent_entry(transparent: int) -> None:
    indexes = INDEXES.copy()
    indexes[3:5, 2:9] = transparent
    data = gif(frame(indexes, transparent=transparent), SIZE, colours=COLOURS)
    expected = table(COLOURS)[indexes]
    expected[indexes == transparent] = WHITE
    np.testing.assert_array_equal(ours(data), expected)


@pytest.mark.parametrize("transparent", [None, 7])
@pytest.mark.parametrize("at", [(0, 0), (4, 3), (7, 9)])
def test_what_the_first_frame_does_not_cover_is_transparent(
    at: tuple[int, int], transparent: int | None
) -> None:
    second = frame(INDEXES, colours=OTHERS)
    first = frame(INDEXES, at=at, transparent=transparent)
    data = gif(first + second, (20, 20), colours=COLOURS)
    expected = np.full((20, 20, 3), 255)
    shown = table(COLOURS)[INDEXES]
    if transparent is not None:
        shown[transparent == INDEXES] = WHITE
    expected[at[1] : at[1] + HEIGHT, at[0] : at[0] + WIDTH] = shown
    np.testing.assert_array_equal(ours(data), expected)


def test_a_first_frame_extends_the_canvas() -> None:
    data = gif(frame(INDEXES, at=(2, 1)), (4, 4), colours=COLOURS)
    assert load_image(data).size == (WIDTH + 2, HEIGHT + 1)
    assert load_image(gif(frame(INDEXES), (0, 0), colours=COLOURS)).size == SIZE


EXTENSIONS = {
    "a comment": extension(0xFE, b"text"),
    "a comment of 2 MB": extension(0xFE, *[b"x" * 255] * 8000),
    "an empty comment": extension(0xFE),
    "an application": extension(0xFF, b"NETSCAPE2.0", b"\1\0\0"),
    "a short application": extension(0xFF, b"NET"),
    "an application without blocks": extension(0xFF),
    "a short loop": extension(0xFF, b"NETSCAPE2.0", b"\1"),
    "a profile": extension(0xFF, b"ICCRGBG1012", b"garbage"),
    "a short graphic control": extension(0xF9, b"\1"),
    "an empty graphic control": extension(0xF9),
    "a long graphic control": extension(0xF9, bytes(9)),
    "plain text": extension(0x01, bytes(12), b"text"),
    "an extension that nobody knows": extension(0x77, b"whatever"),
    "a comment that is longer than it says": b"!\xfe\x03text, and more\0",
    "a comment that is shorter than it says": b"!\xfe\x20text\0",
    "empty blocks": b"\0\0\0",
}


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_extensions_cost_no_intact_image(kind: str) -> None:
    data = gif(frame(INDEXES), SIZE, colours=COLOURS, before=EXTENSIONS[kind])
    np.testing.assert_array_equal(ours(data), table(COLOURS)[INDEXES])


@pytest.mark.parametrize("after", [b"", b"\x99garbage", extension(0xFE, b"text"), b"!"])
def test_nothing_behind_the_first_frame_matters(after: bytes) -> None:
    data = gif(frame(INDEXES) + after, SIZE, colours=COLOURS, end=0)
    np.testing.assert_array_equal(ours(data), table(COLOURS)[INDEXES])


SOUND = gif(frame(INDEXES), SIZE, colours=COLOURS)


def test_every_cut_is_named() -> None:
    for length in range(6, len(SOUND) - 5, 3):
        with pytest.raises(ImageError, match="is cut short"):
            load_image(SOUND[:length])


def test_a_frame_that_ends_early_is_damaged() -> None:
    start = SOUND.index(b",")
    few = SOUND[: start + 10] + compressed(INDEXES[:5]) + b";"
    with pytest.raises(ImageError, match=r"is (damaged|cut short)"):
        load_image(few)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (SOUND.replace(b"89a", b"99a"), "damaged: .*the version"),
        (gif(b"", SIZE, colours=COLOURS), "damaged: .*no frame"),
        (gif(b"\x99", SIZE, colours=COLOURS), "damaged: .*no block at byte 781"),
        (gif(frame(INDEXES), SIZE), "damaged: .*no colour table"),
        (gif(frame(INDEXES[:0]), SIZE, colours=COLOURS), "damaged: .*a frame of 13x0"),
        (gif(frame(INDEXES, at=(65535, 65535)), SIZE, colours=COLOURS), "too many pixels"),
        (gif(frame(INDEXES), (65535, 65535), colours=COLOURS), "too many pixels"),
        (SOUND[:-100] + b"\xff" * 99 + b";", "damaged|cut short"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(data)
