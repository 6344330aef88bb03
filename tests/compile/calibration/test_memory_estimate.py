"""The estimate of a calibration's memory, against what NumPy allocates."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mvlm.compile.calibration.matrix_rounding import round_matrix
from mvlm.compile.calibration.memory_estimate import _Layer, _rounding_bytes, calibration_bytes
from mvlm.compile.calibration.moments import SecondMoments
from mvlm.compile.calibration_data.samples import CalibrationData, Sample, SourceSummary
from mvlm.compile.job import plan_job
from mvlm.compile.memory import PROGRAM_BYTES
from mvlm.models.config.read import read_config
from mvlm.models.quantization import WEIGHT_FORMATS, plan_quantization
from tests.reference import write_random_checkpoint


@pytest.mark.parametrize("name", ["q4nl", "q3nl", "q8"])
@pytest.mark.parametrize(("rows", "width"), [(1024, 128), (384, 384), (64, 512), (4500, 96)])
def test_estimate_covers_the_rounding_of_a_matrix(name: str, rows: int, width: int) -> None:
    rng = np.random.default_rng(0)
    tracemalloc.start()
    try:
        moments = SecondMoments("layer", width)
        moments.add(rng.standard_normal((width, width)).astype(np.float32))
        matrix = rng.standard_normal((rows, width), np.float32)
        round_matrix(matrix, moments.mean(), WEIGHT_FORMATS[name])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    estimate = _rounding_bytes([_Layer(rows, width)])
    assert 0.55 * estimate < peak < estimate


def test_estimate_grows_with_the_parts_that_are_calibrated(tmp_path: Path) -> None:
    checkpoint = write_random_checkpoint(tmp_path / "model", "ldpnetv2", seed=0)
    config = read_config(checkpoint, None)
    sample = Sample((1,) * 2048)
    positions = 100_000
    text = CalibrationData((sample,), (SourceSummary(tmp_path, 1, 0, positions),))
    images = CalibrationData((sample,), (SourceSummary(tmp_path, 1, 1000, positions),))

    def estimate(data: CalibrationData, **parts: str) -> int:
        return calibration_bytes(
            plan_job(checkpoint, quantization=plan_quantization(**parts)), data
        )

    hidden = config.language.hidden_size
    assert estimate(text) - PROGRAM_BYTES > 2 * 4 * positions * hidden
    assert estimate(images) > estimate(text)
    smallest = estimate(text, language="q0f32", head="q0f32")
    assert smallest < estimate(text, language="q4a8", head="q0f32", embedding="q0f32")
