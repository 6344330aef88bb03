"""Bounds that keep a small file from taking much memory."""

from dataclasses import dataclass

from mvlm.runtime.errors import ConfigError, ImageError


@dataclass(frozen=True)
class ImageLimits:
    """Bounds that an image is checked against before it is decoded.

    Attributes:
        max_bytes: Bytes of the file.
        max_pixels: Width times height, of an animation those of its canvas.
        max_side: The longer edge in pixels. Padding a tall image costs time (not memory) with
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


def check_length(length: int, name: str, limits: ImageLimits) -> None:
    """Refuse an empty file and one over the limit.

    Raises:
        ImageError: It is.
    """
    if length == 0:
        raise ImageError(f"{name} is empty", expected="an image", found="0 bytes")
    if length > limits.max_bytes:
        raise ImageError(
            f"{name} is too large",
            expected=f"at most {limits.max_bytes:,} bytes",
            found=f"{length:,}",
            fix="Save the image smaller.",
        )


def check_pixels(size: tuple[int, int], name: str, limits: ImageLimits) -> None:
    """Refuse an image of more pixels than the limits allow.

    Raises:
        ImageError: It is.
    """
    width, height = size
    if width * height > limits.max_pixels or max(size) > limits.max_side:
        raise ImageError(
            f"{name} has too many pixels to be decoded",
            expected=f"at most {limits.max_pixels:,} pixels and {limits.max_side:,} a side",
            found=f"{width}x{height}",
            fix="Scale the image down first.",
        )
