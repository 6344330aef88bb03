"""What a model's layers are measured with. Imports no tvm."""

from __future__ import annotations

from mvlm.compile.calibration_data.samples import CalibrationData, Sample, cut

POSITIONS = 640
"""Positions that are measured at least, where the data have as many.

A 1.7B then takes about twenty minutes of two cores.
"""

# Positions of a sample, beside those of an image: many short samples differ more than few long
# ones.
_LENGTH = 128


def planning_samples(data: CalibrationData, image_tokens: int) -> tuple[Sample, ...]:
    """Return the beginnings of some samples, with :data:`POSITIONS` in all."""
    samples, positions = list[Sample](), 0
    for each in data.samples:
        if positions >= POSITIONS:
            break
        limit = _LENGTH + (image_tokens if each.images else 0)
        samples.append(cut(each, limit, image_tokens))
        positions += samples[-1].positions(image_tokens)
    return tuple(samples)
