"""Every scheme in panels; reads panels back, apart from the code that lays them out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.quantization import SCHEMES
from mvlm.models.weight_layout import LinearFormat
from mvlm.schedules.cpu.panels import PANELS

FORMATS = {name: LinearFormat(scheme, PANELS) for name, scheme in SCHEMES.items()}

Array = npt.NDArray[Any]


def from_panels(panels: Array, features: int) -> Array:
    """Rows of elements ``(features, count)`` from panels ``(panels, count, 16)``, one by one."""
    return np.stack([panels[row // 16, :, row % 16] for row in range(features)])
