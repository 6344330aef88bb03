"""Refuses weights that are NaN or infinite: one check for every reader of weights.

:meth:`Checkpoint.read` calls it on every tensor of a checkpoint, after an adapter was merged, and
the reader of ONNX graphs on every constant.
"""

from __future__ import annotations

import numpy as np

from mvlm.models.weight_files.tensor_file import Array
from mvlm.runtime.errors import CheckpointError

# What infinity becomes if it is not refused: the largest value that every storage can hold.
LARGEST = 65504.0


def check_finite(name: str, tensor: Array, *, allow: bool = False) -> Array:
    """Return a tensor of finite values.

    Args:
        name: The tensor's, for the message.
        tensor: Of any float type.
        allow: Take 0 for NaN and :data:`LARGEST` for infinity, and return float32.

    Returns:
        `tensor` itself if all its values are finite.

    Raises:
        CheckpointError: It holds NaN or infinity, and `allow` is false.
    """
    # A sum is finite only if every term is, and costs no second array of the tensor's size.
    with np.errstate(invalid="ignore", over="ignore"):
        total = tensor.sum(dtype=np.float64)
    if np.isfinite(total):
        return tensor
    with np.errstate(over="ignore"):
        wide = tensor.astype(np.float32)
    wrong = int((~np.isfinite(wide)).sum())
    if not allow:
        raise CheckpointError(
            f"tensor {name} holds NaN or infinite values",
            expected="finite weights",
            found=f"{wrong} of {tensor.size}",
            fix="Download the checkpoint again, or ask its authors. `mvlm compile` and "
            "`mvlm convert` with --allow-nonfinite take 0 for NaN and "
            f"{LARGEST:.0f} for infinity.",
        )
    replaced: Array = np.nan_to_num(wide, nan=0, posinf=LARGEST, neginf=-LARGEST)
    return replaced
