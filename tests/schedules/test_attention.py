"""The CPU kernel of bidirectional attention, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.models import ops
from mvlm.schedules.oracles.arithmetic import attention
from tests.kernels import Array, compiled, definition, kernel

# Weights sum to one, so the result is as large as the values, which are near one: a few float32
# roundings, and the exponential's.
TOLERANCE = 2e-6


def run_kernel(qkv: Array, heads: int, *, slow: bool = False) -> Array:
    reference = definition(lambda x: ops.attention(x, heads), [((1, *qkv.shape), "float32")])
    function = reference if slow else kernel(reference)
    return compiled(function)([qkv], (len(qkv), qkv.shape[1] // 3))


@pytest.mark.parametrize("length", [1, 3, 4, 16, 17, 50])
@pytest.mark.parametrize(("heads", "head_dim"), [(1, 64), (2, 7)])
def test_lengths_and_head_widths(length: int, heads: int, head_dim: int) -> None:
    qkv = np.random.default_rng(length).standard_normal((length, 3 * heads * head_dim), np.float32)
    np.testing.assert_allclose(run_kernel(qkv, heads), attention(qkv, heads), atol=TOLERANCE)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    length=st.integers(1, 70),
    heads=st.integers(1, 4),
    head_dim=st.integers(1, 80),
    seed=st.integers(0, 99),
)
def test_random_shapes(length: int, heads: int, head_dim: int, seed: int) -> None:
    qkv = np.random.default_rng(seed).standard_normal((length, 3 * heads * head_dim), np.float32)
    np.testing.assert_allclose(run_kernel(qkv, heads), attention(qkv, heads), atol=TOLERANCE)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("size", [80.0, 1e4, 1e30])
def test_large_scores_do_not_overflow(sign: int, size: float) -> None:
    """Scores of +-size: exp of them is beyond float32, of their differences it is not."""
    length, head_dim = 19, 16
    qkv = np.zeros((length, 3 * head_dim), np.float32)
    qkv[:, 0] = sign * size * head_dim**0.5
    qkv[:, head_dim] = np.linspace(-1, 1, length)
    qkv[:, 2 * head_dim :] = np.random.default_rng(0).standard_normal((length, head_dim))
    found = run_kernel(qkv, 1)
    assert np.isfinite(found).all()
    # Scores near 80 are rounded to 80 * 2^-24, and that is the error of each weight.
    np.testing.assert_allclose(found, attention(qkv, 1), atol=5e-5)


def test_scores_that_are_all_very_low() -> None:
    """Padded keys score 0, far above these: they must have no weight."""
    length, head_dim = 5, 16
    qkv = np.zeros((length, 3 * head_dim), np.float32)
    qkv[:, 0], qkv[:, head_dim] = 400, -400
    qkv[:, 2 * head_dim :] = np.arange(length)[:, None]
    np.testing.assert_allclose(run_kernel(qkv, 1), np.full((length, head_dim), 2.0), atol=1e-6)


def test_one_position_attends_to_itself() -> None:
    qkv = np.random.default_rng(1).standard_normal((1, 96), np.float32) * 100
    np.testing.assert_array_equal(run_kernel(qkv, 2), qkv[:, 64:])


def test_kernel_and_definition_agree() -> None:
    qkv = np.random.default_rng(2).standard_normal((21, 72), np.float32)
    np.testing.assert_allclose(run_kernel(qkv, 3), run_kernel(qkv, 3, slow=True), atol=TOLERANCE)
