"""Grey of more than 8 bits, and samples of any maximum."""

import numpy as np
from PIL import Image

from mvlm.runtime.image.faults import UnsupportedError
from mvlm.runtime.image.rows import Array, bands, build_rows

# What the brightest value may be where a file does not say it.
_LIKELY_WHITE = (1, 255, 65535)


def scale_table(white: int, *, inverted: bool = False) -> Array:
    """Return the 8-bit value of each sample from 0 to `white`: (white + 1) uint8, rounded.

    Args:
        white: The sample that is the brightest, 1 to 65535.
        inverted: The sample 0 is the brightest, and `white` is black.
    """
    values = (np.arange(white + 1, dtype=np.int64) * 255 * 2 + white) // (2 * white)
    table = values.astype(np.uint8)
    return table[::-1] if inverted else table


def stretch_to_8_bit(samples: Array) -> Image.Image:
    """Scale samples that do not say what white is.

    White is then the least of 1, 255 and 65535 that holds every value. Samples with negative or
    larger values are stretched from their least to their largest.

    Args:
        samples: (rows, columns) or (rows, columns, 3), integers or floats.

    Returns:
        Mode ``L``, or ``RGB`` of three channels.

    Raises:
        UnsupportedError: No sample is finite.
    """
    low, high = _range(samples)
    white = next((white for white in _LIKELY_WHITE if low >= 0 and high <= white), None)
    if white is not None:
        low, high = 0.0, float(white)
    # Halved, because the difference of two floats can be past the largest float.
    span = max(high / 2 - low / 2, float(np.finfo(np.float32).tiny))

    def compute(top: int, bottom: int) -> Array:
        band = samples[top:bottom].astype(np.float64)
        finite = np.nan_to_num(band, nan=low, posinf=high, neginf=low)
        unit = (finite / 2 - low / 2) / span
        levels: Array = np.rint(unit.clip(0, 1) * 255).astype(np.uint8)
        return levels

    height, width = samples.shape[:2]
    return build_rows((width, height), "L" if samples.ndim == 2 else "RGB", compute)


def _range(samples: Array) -> tuple[float, float]:
    """Return the least and the largest finite sample."""
    lows, highs = [], []
    height, width = samples.shape[:2]
    for top, bottom in bands(width, height):
        band = samples[top:bottom]
        known = band[np.isfinite(band)]
        if known.size:
            lows.append(float(known.min()))
            highs.append(float(known.max()))
    if not lows:
        raise UnsupportedError("no finite value, only NaN or infinity")
    return min(lows), max(highs)
