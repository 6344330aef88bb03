"""Rotary positions against transformers' own table and NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mvlm.models.rotary import inverse_frequencies, rotary_table, rotate
from tests.kernels import Spec, run_graph


@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("theta", [10000.0, 50000.0, 1e6])
def test_frequencies_are_those_of_torch(head_dim: int, theta: float) -> None:
    """To the last bit or the one beside it: torch's power is not always rounded correctly."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    expected = (1.0 / theta**exponents).numpy()
    np.testing.assert_array_max_ulp(inverse_frequencies(head_dim, theta), expected, maxulp=1)


@pytest.mark.parametrize("length", [1, 3, 40])
@pytest.mark.parametrize("head_dim", [8, 64, 80])
def test_rotation(length: int, head_dim: int) -> None:
    random = np.random.default_rng(length)
    heads, turning, half = 5, 3, head_dim // 2
    x = random.standard_normal((1, length, heads, head_dim), np.float32)
    positions = random.integers(0, 4096, length, dtype=np.int32)
    frequencies = inverse_frequencies(head_dim, 10000.0)
    specs: list[Spec] = [((1, "n", heads, head_dim), "float32"), (("n",), "int32")]
    found = run_graph(
        lambda x, at: rotate(x, rotary_table(at, frequencies), turning), specs, x, positions
    )
    # The angle itself is rounded to float32, as it is in the official computation.
    angles = (positions.astype(np.float32)[:, None] * frequencies).astype(np.float64)
    turn = np.exp(1j * angles)[:, None]
    pairs = (x[..., :half] + 1j * x[..., half:]).astype(np.complex128)
    pairs[:, :, :turning] *= turn
    # Values near 4 and a sine good to the last place of 1.
    expected = np.concatenate([pairs.real, pairs.imag], -1)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_array_equal(found[:, :, turning:], x[:, :, turning:])
