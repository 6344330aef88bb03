"""Rotary frequencies against torch's, and their table against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tvm.relax.frontend import nn

from mvlm.models.rotary import inverse_frequencies, rotary_table
from tests.kernels import Spec, run_graph


@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("theta", [10000.0, 50000.0, 1e6])
def test_frequencies_are_those_of_torch(head_dim: int, theta: float) -> None:
    """To the last bit or the one beside it: torch's power is not always rounded correctly."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    expected = (1.0 / theta**exponents).numpy()
    np.testing.assert_array_max_ulp(inverse_frequencies(head_dim, theta), expected, maxulp=1)


@pytest.mark.parametrize("start", [0, 1, 2000])
@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("head_dim", [8, 80])
def test_table(start: int, count: int, head_dim: int) -> None:
    frequencies = inverse_frequencies(head_dim, 10000.0)

    def tables(first: nn.Tensor, rows: nn.Tensor) -> nn.Tensor:
        return nn.op.concat(list(rotary_table(first, rows.shape[0], frequencies)), dim=1)

    specs: list[Spec] = [((1,), "int32"), (("n",), "int32")]
    first, rows = np.array([start], np.int32), np.zeros(count, np.int32)
    found = run_graph(tables, specs, first, rows)
    # The angle itself is rounded to float32, as it is in the official computation.
    positions = np.arange(start, start + count, dtype=np.float32)
    angles = (positions[:, None] * frequencies).astype(np.float64)
    expected = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    np.testing.assert_allclose(found, expected, atol=2e-7)
