"""Rounded matrices in a file: what is read is what was written, and nothing else is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from mvlm.compile.calibration.rounded_weights import LayerReport, RoundedPart, RoundedWeights
from mvlm.models.quantization import WEIGHT_FORMATS, dequantize, quantize

FORMATS = ("q4nl", "q3nl", "q8", "q4mlc")
Tensors = dict[str, npt.NDArray[Any]]


def _report(layer: str, name: str) -> LayerReport:
    return LayerReport(layer, name, 0.25, 0.5, fell_back=False)


@pytest.fixture
def weights(tmp_path: Path) -> RoundedWeights:
    """A part whose layers have all formats."""
    found = RoundedWeights(tmp_path, "key")
    matrix = np.random.default_rng(0).standard_normal((20, 45)).astype(np.float32)
    rounded = {name: quantize(matrix, WEIGHT_FORMATS[name], "search") for name in FORMATS}
    found.write("part", RoundedPart(rounded, tuple(_report(name, name) for name in FORMATS)))
    return found


def _change(weights: RoundedWeights, name: str, value: npt.NDArray[Any] | None) -> None:
    """Write the file again with one tensor changed, added, or left out."""
    path = weights.folder / "part.safetensors"
    with safe_open(path, framework="numpy") as file:
        metadata, names = file.metadata(), file.keys()
        tensors: Tensors = {each: file.get_tensor(each) for each in names}
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, path, metadata)


def test_what_is_read_is_what_was_written(weights: RoundedWeights) -> None:
    found = weights.read("part")
    assert found is not None
    assert [each.layer for each in found.reports] == list(FORMATS)
    matrix = np.random.default_rng(0).standard_normal((20, 45)).astype(np.float32)
    for name in FORMATS:
        weight_format = WEIGHT_FORMATS[name]
        expected = dequantize(quantize(matrix, weight_format, "search"), weight_format)
        np.testing.assert_array_equal(dequantize(found.matrices[name], weight_format), expected)
    assert RoundedWeights(weights.folder, "other").read("part") is None


@pytest.mark.parametrize("layer", ["q4nl", "q3nl"])
@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        ("integers", None),
        ("integers", np.full((20, 45), 16, np.uint8)),
        ("integers", np.zeros((20, 45), np.int8)),
        ("integers", np.zeros((20, 44, 1), np.uint8)),
        ("scales", np.zeros((20, 1), np.int8)),
        ("scales", np.zeros((20, 2), np.uint8)),
        ("row_scales", None),
        ("row_scales", np.ones(19, np.float32)),
        ("row_scales", np.ones(20, np.float64)),
        ("row_scales", np.zeros(20, np.float32)),
        ("row_scales", np.full(20, np.inf, np.float32)),
        ("row_scales", np.full(20, np.nan, np.float32)),
        ("levels", None),
        ("levels", np.tile(np.arange(16, dtype=np.int8), (2, 1))),
        ("levels", np.zeros((20, 16), np.int8)),
        ("zeros", np.zeros(3, np.int8)),
    ],
)
def test_other_tensors_are_not_taken(
    weights: RoundedWeights, layer: str, tensor: str, value: npt.NDArray[Any] | None
) -> None:
    _change(weights, f"{layer}.{tensor}", value)
    assert weights.read("part") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("q8.integers", np.full((20, 45), -128, np.int8)),
        ("q4mlc.integers", np.full((20, 45), 8, np.int8)),
        ("q8.scales", np.full((20, 2), np.inf, np.float16)),
        ("q8.scales", np.ones((20, 2), np.float32)),
        ("q8.row_scales", np.ones(20, np.float32)),
    ],
)
def test_other_integers_are_not_taken(
    weights: RoundedWeights, name: str, value: npt.NDArray[Any]
) -> None:
    _change(weights, name, value)
    assert weights.read("part") is None


def test_any_byte_is_a_scale(weights: RoundedWeights) -> None:
    for byte in (-128, -1, 0, 127):
        _change(weights, "q4nl.scales", np.full((20, 2), byte, np.int8))
        assert weights.read("part") is not None


@pytest.mark.parametrize("weight_format", ["q5", "float16", "", None])
def test_reports_of_other_formats_are_not_taken(
    weights: RoundedWeights, weight_format: Any
) -> None:
    found = weights.read("part")
    assert found is not None
    reports = [vars(replace(found.reports[0], weight_format=weight_format))]
    path = weights.folder / "part.safetensors"
    metadata = {"calibration": json.dumps({"key": "key", "reports": reports})}
    matrix = found.matrices["q4nl"]
    save_file({"q4nl.integers": matrix.integers, "q4nl.scales": matrix.scales}, path, metadata)
    assert weights.read("part") is None


def test_arrays_are_written_in_c_order(tmp_path: Path) -> None:
    """safetensors writes an array's memory as it lies."""
    matrix = np.random.default_rng(0).standard_normal((20, 96)).astype(np.float32)
    rounded = quantize(matrix, WEIGHT_FORMATS["q4nl"])
    turned = replace(rounded, scales=rounded.scales.T.copy().T, levels=rounded.levels.T.copy().T)
    weights = RoundedWeights(tmp_path, "key")
    weights.write("part", RoundedPart({"layer": turned}, (_report("layer", "q4nl"),)))
    found = weights.read("part")
    assert found is not None
    np.testing.assert_array_equal(found.matrices["layer"].scales, rounded.scales)
    np.testing.assert_array_equal(found.matrices["layer"].levels, rounded.levels)
