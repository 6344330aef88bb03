"""LoRA deltas of numbers that float32 cannot hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mvlm.models.checkpoint.adapter.delta import LoraDelta


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("size", [0.0, 1e300])
def test_nonfinite_deltas_cause_no_numpy_warning(size: float) -> None:
    """Packing the result refuses it, with the tensor's name.

    A row of zeros has no direction that DoRA's magnitude could scale; 1e300 becomes infinite.
    """
    tensors = {"a": np.full((1, 3), size), "b": np.ones((2, 1)), "m": np.ones(2)}
    weights: Any = SimpleNamespace(read=tensors.__getitem__)
    delta = LoraDelta({"a": "a", "b": "b", "magnitude": "m"}, 2.0, (2, 3))
    assert np.isnan(delta.apply(np.zeros((2, 3), np.float32), weights)).all()
