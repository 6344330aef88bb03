"""The second moments of a linear layer's inputs, summed up over the calibration's samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mvlm.runtime.errors import CheckpointError

Float32Array = npt.NDArray[np.float32]


class SecondMoments:
    """``E[x x^T]`` of the inputs x of one linear layer.

    Args:
        layer: The layer's name, for messages.
        width: K.

    Attributes:
        count: Inputs that were added.
    """

    def __init__(self, layer: str, width: int) -> None:
        self.layer = layer
        self.count = 0
        self._sum = np.zeros((width, width), np.float32)

    def add(self, inputs: Float32Array) -> None:
        """Add inputs ``(..., K)``.

        Raises:
            CheckpointError: One is not finite, or too large to be squared.
        """
        rows = inputs.reshape(-1, inputs.shape[-1])
        with np.errstate(over="ignore", invalid="ignore"):
            products = rows.T @ rows  # NumPy computes half of a product with its own transpose
        if not np.isfinite(np.diagonal(products)).all():
            raise _not_finite(self.layer, rows)
        self._sum += products
        self.count += len(rows)

    def mean(self) -> Float32Array:
        """Return the moments ``(K, K)``; zeros where nothing was added."""
        return self._sum / np.float32(max(1, self.count))


def damped(moments: Float32Array, damping: float) -> npt.NDArray[np.float64]:
    """Return moments ``(K, K)`` that have all directions.

    Inputs of the model that calibration has not seen vary in directions in which those that it has
    seen hardly do, or never.

    Args:
        moments: Of which one at least is above zero.
        damping: What is added to the diagonal, relative to its mean.
    """
    exact = moments.astype(np.float64)
    diagonal = np.diagonal(exact).copy()
    mean = diagonal.mean()
    # An input that is always zero is free: any number on the diagonal leaves it alone.
    np.fill_diagonal(exact, np.where(diagonal == 0, mean, diagonal) + damping * mean)
    return exact


def _not_finite(layer: str, rows: Float32Array) -> CheckpointError:
    bad = ~np.isfinite(rows)
    found = (
        f"{bad.any(axis=1).sum()} of {len(rows)} positions with NaN or infinity"
        if bad.any()
        else f"values up to {np.abs(rows).max():.3g}, whose squares are infinite"
    )
    return CheckpointError(
        f"calibration cannot use the inputs of {layer}",
        expected="finite numbers",
        found=found,
        fix="The checkpoint computes them from its own weights: look for the first layer that "
        "does, or compile without calibration.",
    )
