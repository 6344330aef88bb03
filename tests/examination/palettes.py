"""What people's red, green, blue, yellow, orange and purple look like, and how far apart they are.

The palettes are published ones. Left out is any colour that its own palette calls yellow but that
others would call orange, and the like.
"""

from __future__ import annotations

import math

import numpy as np

from tests.examination.truth import COLOURS

RGB = tuple[int, int, int]

_HEX = {
    # name: red green blue yellow orange purple
    "css": "FF0000 008000 0000FF FFFF00 FFA500 800080",
    "css, lime": "FF0000 32CD32 0000FF FFD700 FF8C00 800080",
    "x11": "FF0000 00FF00 0000FF FFFF00 FFA500 A020F0",
    "material": "F44336 4CAF50 2196F3 FFEB3B FF9800 9C27B0",
    "tableau": "D62728 2CA02C 1F77B4 EDC948 FF7F0E 9467BD",
    "flat": "E74C3C 2ECC71 3498DB F1C40F E67E22 9B59B6",
    "xkcd": "E50000 15B01A 0343DF FFFF14 F97306 7E1E9C",
    "phone": "FF3B30 34C759 007AFF FFCC00 FF9500 AF52DE",
    "office": "C00000 00B050 0070C0 FFFF00 ED7D31 7030A0",
    "open": "F03E3E 37B24D 1C7ED6 FFD43B FD7E14 AE3EC9",
    "crayon": "EE204D 3AA655 1F75FE FCE883 FF7538 7851A9",
    "dark": "B22222 006400 00008B E6C300 E06C00 660099",
}
PALETTES: dict[str, dict[str, RGB]] = {
    name: {
        colour: (int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16))
        for colour, code in zip(COLOURS, codes.split(), strict=True)
    }
    for name, codes in _HEX.items()
}


def difference(one: RGB, other: RGB) -> float:
    """How different two sRGB colours look: the CIE 1994 formula, white to black being 100.

    The chroma in its weights is the geometric mean of both, which makes it symmetric.
    """
    (l1, a1, b1), (l2, a2, b2) = _lab(one), _lab(other)
    chroma1, chroma2 = math.hypot(a1, b1), math.hypot(a2, b2)
    mean = math.sqrt(chroma1 * chroma2)
    along = chroma1 - chroma2
    across = max(0.0, (a1 - a2) ** 2 + (b1 - b2) ** 2 - along**2)
    return math.sqrt(
        (l1 - l2) ** 2 + (along / (1 + 0.045 * mean)) ** 2 + across / (1 + 0.015 * mean) ** 2
    )


def _lab(rgb: RGB) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    unit = np.asarray(rgb) / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)]
    )
    xyz = to_xyz @ linear / (0.9505, 1.0, 1.089)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
