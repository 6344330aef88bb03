"""Pictures: from a file to the numbers that the vision tower reads.

:func:`load_image` turns what a user has (a phone photo, a screenshot, a scan) into an upright RGB
picture, and treats the file as hostile until it is decoded. :func:`preprocess` computes what
MobileVLM computes in training: pad to a square with the mean colour, or crop; bicubic resize on
8-bit values; normalise. Its results are those of ``transformers.CLIPImageProcessor``, bit by bit.

Three things differ from the official command line, which calls ``Image.open(...).convert("RGB")``:

- A photo is turned upright by its EXIF orientation; the official code shows it lying on its side.
- Transparent pixels are composited on white. The official code drops the alpha channel, and so
  shows colours that nobody sees, mostly black. ``load_image(..., background=None)`` does the same.
- Grey of more than 8 bits is scaled to 8 bits; the official code clips it, mostly to white.
"""

import io
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from mvlm.runtime.errors import ConfigError, ImageError

Colour: TypeAlias = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)

# Only these decoders can be reached from a file: others, such as EPS, start programs.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP", "TIFF")

_MAX_SPEC_SIZE = 4096
# A canvas is filled in bands of about this many pixels, 4 bytes each.
_BAND_PIXELS = 4_000_000
# Cropping first enlarges the longer edge by the aspect ratio; this bounds that picture.
_MAX_CROP_ASPECT = 100

_EXIF_ORIENTATION = 0x0112
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


@dataclass(frozen=True)
class ImageSpec:
    """What a vision tower expects of a picture.

    Attributes:
        size: Side of the square input in pixels.
        mean: Mean of red, green and blue, each in [0, 1].
        std: Standard deviation of red, green and blue, above 0.
        aspect: ``pad`` extends the picture to a square with the mean colour (the official
            ``image_aspect_ratio: pad``); ``crop`` resizes the shorter edge to `size` and keeps
            the centre (every other value of that key).

    Raises:
        ConfigError: A value is out of its range.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    aspect: Literal["pad", "crop"] = "pad"

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= _MAX_SPEC_SIZE:
            raise ConfigError("image size", expected=f"1 to {_MAX_SPEC_SIZE}", found=self.size)
        _check_colour("image_mean", self.mean, "numbers from 0 to 1", lambda v: 0 <= v <= 1)
        _check_colour("image_std", self.std, "numbers above 0, up to 1", lambda v: 0 < v <= 1)
        if self.aspect not in ("pad", "crop"):
            raise ConfigError("image aspect", expected="pad or crop", found=repr(self.aspect))

    @property
    def background(self) -> Colour:
        """The padding colour in 8 bits: the mean, truncated as the official code does."""
        red, green, blue = (int(value * 255) for value in self.mean)
        return red, green, blue

    def to_json(self) -> dict[str, object]:
        """The same as a JSON object."""
        return {
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "aspect": self.aspect,
        }

    @classmethod
    def from_json(cls, value: object) -> "ImageSpec":
        """Read what :meth:`to_json` wrote.

        Raises:
            ConfigError: `value` is not such an object.
        """
        keys = {"size", "mean", "std", "aspect"}
        if not isinstance(value, dict) or set(value) != keys:
            found = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise ConfigError("image settings", expected=f"the keys {sorted(keys)}", found=found)
        mean, std = (
            tuple(value[key]) if isinstance(value[key], list) else value[key]
            for key in ("mean", "std")
        )
        return cls(size=value["size"], mean=mean, std=std, aspect=value["aspect"])


@dataclass(frozen=True)
class ImageLimits:
    """Bounds that a picture is checked against before it is decoded.

    Attributes:
        max_bytes: Bytes of the file.
        max_pixels: Width times height. Pillow itself refuses more than 178,956,970.
        max_side: The longer edge in pixels. Padding a tall picture costs time (not memory) with
            the square of its height.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 100_000_000
    max_side: int = 32_768

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"image limit {name}", expected="1 or more", found=value)


DEFAULT_LIMITS = ImageLimits()


def load_image(
    source: str | Path | bytes,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    background: Colour | None = WHITE,
) -> Image.Image:
    """Read a picture as a person would see it.

    Args:
        source: A file's path, or the bytes of a file. PNG, JPEG, WebP, GIF, BMP, TIFF and PPM are
            read; of an animation, the first frame.
        limits: What is refused before any pixel is decoded.
        background: What shows through transparent pixels; ``None`` ignores transparency.

    Returns:
        An upright picture of mode ``RGB``, in memory.

    Raises:
        ImageError: The picture cannot be read, or is over a limit.
    """
    if isinstance(source, bytes):
        name = "the picture"
        _check_length(len(source), name, limits)
        return _decode(io.BytesIO(source), name, limits, background)
    name = str(source)
    try:
        status = Path(source).stat()
        # Asked before opening, because opening a pipe would wait for its other end.
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
            raise ImageError(f"cannot read {name}", expected="a picture file", found=kind)
        _check_length(status.st_size, name, limits)
        with Path(source).open("rb") as file:
            return _decode(file, name, limits, background)
    except FileNotFoundError:
        raise ImageError(f"there is no file {name}", fix="Check the picture's path.") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {name}", found=error) from error


def preprocess(image: Image.Image, spec: ImageSpec) -> npt.NDArray[np.float32]:
    """Compute the vision tower's input from a picture.

    The same numbers as the official ``process_images`` with ``CLIPImageProcessor``, but a long
    picture needs no square canvas of its longer edge: memory grows with ``longer edge x size``.

    Args:
        image: A picture; modes other than ``RGB`` are converted as Pillow does.
        spec: What the tower expects.

    Returns:
        ``pixel_values`` (1, 3, size, size), float32.

    Raises:
        ImageError: The picture is empty, or too long to be cropped (over 100:1).
    """
    if 0 in image.size:
        raise ImageError("the picture is empty", found=f"{image.width}x{image.height} pixels")
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    square = _pad(rgb, spec) if spec.aspect == "pad" else _crop(rgb, spec)
    # The processor multiplies in float64 and rounds once; dividing would differ in the last bit.
    unit = (np.asarray(square).astype(np.float64) * (1 / 255)).astype(np.float32)
    normalised = (unit - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])


def _check_colour(name: str, colour: object, expected: str, holds: Callable[[float], bool]) -> None:
    if (
        not isinstance(colour, tuple)
        or len(colour) != 3
        or not all(type(value) in (int, float) and holds(value) for value in colour)
    ):
        raise ConfigError(name, expected=f"three {expected}", found=colour)


def _check_length(length: int, name: str, limits: ImageLimits) -> None:
    if length == 0:
        raise ImageError(f"{name} is empty", expected="a picture", found="0 bytes")
    if length > limits.max_bytes:
        raise ImageError(
            f"{name} is too large",
            expected=f"at most {limits.max_bytes:,} bytes",
            found=f"{length:,}",
            fix="Save the picture smaller.",
        )


def _check_pixels(size: tuple[int, int], name: str, limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels or max(size) > limits.max_side:
        raise ImageError(
            f"{name} has too many pixels to be decoded",
            expected=f"at most {limits.max_pixels:,} pixels and {limits.max_side:,} a side",
            found=f"{width}x{height}",
            fix="Scale the picture down first.",
        )


def _decode(
    file: BinaryIO, name: str, limits: ImageLimits, background: Colour | None
) -> Image.Image:
    with _quiet_pillow():
        try:
            with Image.open(file, formats=FORMATS) as image:
                _check_pixels(image.size, name, limits)
                image.load()
                # Asked after loading: Pillow turns a TIFF itself, and then drops the tag.
                turn = _UPRIGHT.get(_orientation(image))
                rgb = _to_rgb(image, background)
                return rgb if turn is None else rgb.transpose(turn)
        except ImageError:
            raise
        except (Image.DecompressionBombError, MemoryError) as error:
            found = str(error) or "too little memory"
            raise ImageError(f"{name} has too many pixels to be decoded", found=found) from error
        except UnidentifiedImageError:
            raise ImageError(
                f"{name} is not a picture that can be read",
                expected=", ".join(FORMATS),
                found=_kind(file),
                fix="Save it as PNG or JPEG.",
            ) from None
        except Exception as error:  # Decoders raise nearly anything on damaged files.
            raise ImageError(
                f"{name} is damaged or cut short",
                found=str(error) or type(error).__name__,
                fix="Save or download the picture again.",
            ) from error


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings (large picture, odd metadata) from the user's terminal.

    Warning filters belong to the whole process, so threads take turns.
    """
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # Damaged metadata must not cost the user an intact picture.
        return 1


def _kind(file: BinaryIO) -> str:
    """Name what people take for a supported picture, from the file's first bytes."""
    file.seek(0)
    head = file.read(64)
    if head[4:8] == b"ftyp":
        return "HEIF or AVIF, or a film"
    if head.startswith(b"%PDF"):
        return "a PDF document"
    if head.startswith(b"%!PS"):
        return "PostScript"
    if head.lstrip().startswith((b"<svg", b"<?xml")):
        return "SVG or XML"
    is_text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)
    return "text" if is_text else "an unknown format"


def _to_rgb(image: Image.Image, background: Colour | None) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _grey_to_8_bit(image).convert("RGB")
    if background is None or not image.has_transparency_data:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(seen, mask=seen.getchannel("A"))
    return canvas


def _grey_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale grey of 16 bits, 32 bits or floats to 8 bits (mode ``L``).

    16-bit files say that white is 65535. Others do not say: white is then the least of 1, 255 and
    65535 that holds every value, and a picture with negative or larger values is stretched from
    its least to its largest.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)
        return Image.fromarray(levels[values.clip(0, 65535)])
    known = values[np.isfinite(values)]
    if not known.size:
        raise ImageError("the picture holds no finite value", found="only NaN or infinity")
    low, high = float(known.min()), float(known.max())
    white = next((white for white in (1, 255, 65535) if low >= 0 and high <= white), None)
    if white is not None:
        low, high = 0.0, float(white)
    finite = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
    # Halved, because the difference of two floats can be past the largest float.
    span = max(high / 2 - low / 2, float(np.finfo(np.float32).tiny))
    unit = (finite / 2 - low / 2) / span
    return Image.fromarray(np.rint(unit.clip(0, 1) * 255).astype(np.uint8))


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _pad(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Pad to a square and resize it to ``(size, size)``.

    Pillow resizes rows first, then columns, and rounds to 8 bits between the two. So the rows can
    be resized before the square is complete, and the square itself is never made.
    """
    size, side = spec.size, max(image.size)
    if image.width == image.height:
        return _resize(image, size, size)
    columns = Image.new("RGB", (size, side), spec.background)
    if image.width > image.height:
        columns.paste(_resize(image, size, image.height), (0, (side - image.height) // 2))
        return _resize(columns, size, size)
    left = (side - image.width) // 2
    rows_per_band = max(1, _BAND_PIXELS // side)
    for top in range(0, side, rows_per_band):
        bottom = min(top + rows_per_band, side)
        band = Image.new("RGB", (side, bottom - top), spec.background)
        band.paste(image.crop((0, top, image.width, bottom)), (left, 0))
        columns.paste(_resize(band, size, bottom - top), (0, top))
    return _resize(columns, size, size)


def _crop(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Resize the shorter edge to `size` and keep the centre."""
    shorter, longer = sorted(image.size)
    if longer > shorter * _MAX_CROP_ASPECT:
        raise ImageError(
            "the picture is too long to be cropped to a square",
            expected=f"an aspect ratio of at most {_MAX_CROP_ASPECT}:1",
            found=f"{image.width}x{image.height}",
        )
    resized_longer = int(spec.size * longer / shorter)
    is_tall = image.width <= image.height
    width, height = (spec.size, resized_longer) if is_tall else (resized_longer, spec.size)
    left, top = (width - spec.size) // 2, (height - spec.size) // 2
    return _resize(image, width, height).crop((left, top, left + spec.size, top + spec.size))
