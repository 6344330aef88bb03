"""From a file to an upright RGB image."""

import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from PIL import Image

from mvlm.runtime.errors import ImageError
from mvlm.runtime.image.decoded_image import CheckSize, DecodedImage
from mvlm.runtime.image.faults import CutShortError, DamagedError, UnreadableError, UnsupportedError
from mvlm.runtime.image.formats import FORMATS, HEAD_BYTES, describe, identify
from mvlm.runtime.image.limits import DEFAULT_LIMITS, ImageLimits, check_length, check_pixels
from mvlm.runtime.image.spec import WHITE, Colour

# Modules of this package. Imported when they are needed, because each takes milliseconds.
_READERS = {
    "PNG": "png",
    "JPEG": "jpeg",
    "GIF": "gif",
    "BMP": "bmp",
    "PPM": "pnm",
    "WEBP": "webp",
    "TIFF": "tiff",
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_pillow_lock = threading.Lock()


def load_image(
    source: str | Path | bytes,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    background: Colour | None = WHITE,
) -> Image.Image:
    """Read an image as a person would see it.

    A file that lacks its end is read if all pixels are there.

    Args:
        source: A file's path, or the bytes of a file. PNG, JPEG, WebP, GIF, BMP, TIFF and PNM (PBM,
            PGM, PPM, PAM, PFM) are read; of an animation, the first frame.
        limits: What is refused before any pixel is decoded.
        background: What shows through transparent pixels; ``None`` ignores transparency.

    Returns:
        An upright image of mode ``RGB``, in memory.

    Raises:
        ImageError: The image cannot be read, or is over a limit.
    """
    if isinstance(source, bytes):
        name = "the image"
        check_length(len(source), name, limits)
        return _decode(source, name, limits, background)
    name = str(source)
    return _decode(_read_file(source, name, limits), name, limits, background)


def _read_file(source: str | Path, name: str, limits: ImageLimits) -> bytes:
    """Return the file's bytes; all of them, and none that come meanwhile."""
    try:
        status = Path(source).stat()
        # Asked before opening, because opening a pipe would wait for its other end.
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
            raise ImageError(f"cannot read {name}", expected="an image file", found=kind)
        check_length(status.st_size, name, limits)
        with Path(source).open("rb") as file:
            head = file.read(HEAD_BYTES)
            if identify(head) is None:
                return head  # The rest need not be read to say so.
            return head + file.read(status.st_size - len(head))
    except FileNotFoundError:
        raise ImageError(f"there is no file {name}", fix="Check the image's path.") from None
    except (OSError, ValueError, MemoryError) as error:
        found = str(error) or "too little memory"
        raise ImageError(f"cannot read {name}", found=found) from error


def _decode(data: bytes, name: str, limits: ImageLimits, background: Colour | None) -> Image.Image:
    kind = identify(data[:HEAD_BYTES])
    if kind is None:
        raise ImageError(
            f"{name} is not an image that can be read",
            expected=", ".join(FORMATS),
            found=describe(data[:HEAD_BYTES]),
            fix="Save it as PNG or JPEG.",
        )
    with _quiet_pillow():
        try:
            visible = _reader(kind)(data, lambda size: check_pixels(size, name, limits))
            return _finish(visible, background)
        except UnreadableError as fault:
            raise _explained(fault, name, kind) from fault
        except (Image.DecompressionBombError, MemoryError) as error:
            found = str(error) or "too little memory"
            raise ImageError(f"{name} has too many pixels to be decoded", found=found) from error


def _reader(kind: str) -> Callable[[bytes, CheckSize], DecodedImage]:
    reader: Callable[[bytes, CheckSize], DecodedImage]
    reader = import_module(f"mvlm.runtime.image.{_READERS[kind]}").read
    return reader


def _explained(fault: UnreadableError, name: str, kind: str) -> ImageError:
    """Return the error that says what is wrong with the file."""
    if isinstance(fault, UnsupportedError):
        return ImageError(
            f"{name} is a {kind} file of a kind that is not read",
            found=fault,
            fix="Save it as PNG or JPEG.",
        )
    assert isinstance(fault, (CutShortError, DamagedError))
    return ImageError(
        f"{name} is " + ("cut short" if isinstance(fault, CutShortError) else "damaged"),
        expected=f"a whole {kind} file",
        found=fault,
        fix="Save or download the image again.",
    )


def _finish(visible: DecodedImage, background: Colour | None) -> Image.Image:
    rgb = _composite(visible.pixels, background)
    turn = _UPRIGHT.get(visible.orientation)
    return rgb if turn is None else rgb.transpose(turn)


def _composite(pixels: Image.Image, background: Colour | None) -> Image.Image:
    if pixels.mode == "RGB" or background is None:
        return pixels.convert("RGB")
    canvas = Image.new("RGB", pixels.size, background)
    canvas.paste(pixels, mask=pixels.getchannel("A"))
    return canvas


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings (large image, odd metadata) from the user's terminal.

    Warning filters and Pillow's settings belong to the whole process, so threads take turns.
    """
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
