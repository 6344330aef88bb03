"""The orientation in EXIF metadata, of which nothing else is read."""

from PIL import Image

from mvlm.runtime.image.decoded_image import UPRIGHT

PREFIX = b"Exif\0\0"

_ORIENTATION = 0x0112


def orientation_of(exif: bytes | None) -> int:
    """Return the orientation, 1 to 8; 1 where there is none or where the metadata is damaged.

    Args:
        exif: A TIFF structure, with or without :data:`PREFIX`.
    """
    if not exif:
        return UPRIGHT
    try:
        tags = Image.Exif()
        tags.load(PREFIX + exif.removeprefix(PREFIX))
        return valid_orientation(tags.get(_ORIENTATION))
    except Exception:  # Damaged metadata must not cost the user an intact image.
        return UPRIGHT


def valid_orientation(value: object) -> int:
    """Return `value` if it is an orientation, else 1."""
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT
