"""Which matrices are calibrated."""

from __future__ import annotations

from mvlm.models.quantization import Scheme

# Formats of more bits lose nothing that calibration could win back.
_MOST_BITS = 8


def is_calibrated(scheme: Scheme) -> bool:
    """Whether calibration rounds the matrices of a scheme."""
    return scheme.weights.is_integer and scheme.weights.bits <= _MOST_BITS
