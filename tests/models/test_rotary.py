"""Rotary frequencies against torch's, and their table against NumPy in float64."""

from __future__ import annotations

from collections.abc import Sequence

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


# Single positions, consecutive ones, and those of several sequences.
POSITIONS = [
    *(range(start, start + count) for start in (0, 1, 2000) for count in (1, 40)),
    (7, 8, 9, 0, 2000, 1, 7),
]


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
@pytest.mark.parametrize("head_dim", [8, 80])
def test_table(positions: Sequence[int], head_dim: int) -> None:
    frequencies = inverse_frequencies(head_dim, 10000.0)

    def tables(rows: nn.Tensor) -> nn.Tensor:
        return nn.op.concat(list(rotary_table(rows, frequencies)), dim=1)

    specs: list[Spec] = [(("n",), "int32")]
    found = run_graph(tables, specs, np.array(positions, np.int32))
    # The angle itself is rounded to float32, as it is in the official computation.
    rows = np.array(positions, np.float32)
    angles = (rows[:, None] * frequencies).astype(np.float64)
    expected = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    np.testing.assert_allclose(found, expected, atol=2e-7)
