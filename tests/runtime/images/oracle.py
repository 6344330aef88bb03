"""What OpenCV decodes, which shares no parser with Pillow, and no code with ours."""

import cv2
import numpy as np
import numpy.typing as npt

from mvlm.runtime.image import load_image

Pixels = npt.NDArray[np.uint8]


def ours(data: bytes) -> Pixels:
    """Return what we read, (height, width, 3)."""
    image = load_image(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def by_opencv(data: bytes, *, with_alpha: bool = True) -> Pixels:
    """Return what OpenCV reads, composited on white, (height, width, 3).

    Without alpha it also turns the image by its EXIF orientation.
    """
    flags = cv2.IMREAD_UNCHANGED if with_alpha else cv2.IMREAD_COLOR
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert decoded is not None, "OpenCV cannot read it"
    if decoded.dtype == np.uint16:
        decoded = np.rint(decoded / 257).astype(np.uint8)
    if decoded.ndim == 2:
        decoded = decoded[..., None].repeat(3, axis=2)
    colours = decoded[..., 2::-1]
    return on_white(colours, decoded[..., 3]) if decoded.shape[2] == 4 else colours


def on_white(colours: npt.NDArray[np.integer], alpha: npt.NDArray[np.integer]) -> Pixels:
    """Composite 8-bit colours, with or without a last axis of one channel."""
    opacity = alpha.astype(np.float64)[..., None] / 255
    return np.rint(colours * opacity + 255 * (1 - opacity)).astype(np.uint8)


def largest_difference(first: Pixels, second: Pixels) -> int:
    assert first.shape == second.shape
    return int(np.abs(first.astype(int) - second.astype(int)).max())
