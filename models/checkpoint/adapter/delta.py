"""The delta of a LoRA adapter to one matrix: a low-rank pair, and for DoRA a magnitude vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mvlm.models.checkpoint.names import Shape
from mvlm.models.checkpoint.report import shape_text
from mvlm.models.weight_files.tensor_file import Array, Weights, listed
from mvlm.runtime.errors import CheckpointError

# The roles of a pair's tensors: of a linear layer or a convolution, and of an embedding.
_PAIR = ("a", "b")
_EMBEDDING_PAIR = ("embedding_a", "embedding_b")
_MAGNITUDE = "magnitude"


@dataclass(frozen=True)
class LoraDelta:
    """The delta of an adapter to one matrix.

    Attributes:
        names: The adapter's own tensors by their role: ``a`` and ``b``, or ``embedding_a`` and
            ``embedding_b``; and for DoRA ``magnitude``.
        scale: Of the product.
        shape: Of the matrix.
    """

    names: Mapping[str, str]
    scale: float
    shape: Shape

    @property
    def is_embedding(self) -> bool:
        """Whether the matrix is an embedding's table."""
        return _EMBEDDING_PAIR[0] in self.names

    def apply(self, base: Array, weights: Weights) -> Array:
        """Return the changed matrix in float32; DoRA as in arXiv 2402.09353, equation 5."""
        # Packing the result refuses infinities.
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            a, b = (_read(weights, self.names[role]) for role in _roles(self.is_embedding))
            product = (b @ a).T if self.is_embedding else _flat(b) @ _flat(a)
            merged: Array = base.astype(np.float32) + np.float32(self.scale) * product.reshape(
                self.shape
            )
            if _MAGNITUDE in self.names:
                merged *= self._factor(merged, weights)
        return merged

    def is_zero(self, weights: Weights) -> bool:
        """Whether B is zero, as it is in a layer that training never reached; reads B."""
        return not weights.read(self.names[_roles(self.is_embedding)[1]]).any()

    def _factor(self, merged: Array, weights: Weights) -> Array:
        """The magnitudes over the norms: of the rows, or of an embedding's columns."""
        magnitude = _read(weights, self.names[_MAGNITUDE]).reshape(-1)
        kept = 1 if self.is_embedding else 0
        others = tuple(axis for axis in range(merged.ndim) if axis != kept)
        # Not np.linalg.norm, which over several axes is the norm of a matrix.
        norms = np.sqrt(np.square(merged).sum(axis=others))
        factor: Array = magnitude / norms
        return np.expand_dims(factor, others)


def make_delta(
    module: str, names: Mapping[str, str], weights: Weights, rank: int, scale: float
) -> LoraDelta:
    """Make the delta of a module's tensors, whose shapes are checked; reads no data.

    Args:
        module: The module's name.
        names: Its tensors by their role.
        weights: What has them.
        rank: What the configuration says.
        scale: Of the product.

    Raises:
        CheckpointError: A tensor of the pair is absent, or the shapes are not those of a pair.
    """
    is_embedding = _EMBEDDING_PAIR[0] in names
    wanted = _roles(is_embedding)
    if names.keys() - {_MAGNITUDE} != set(wanted):
        raise CheckpointError(
            f"the adapter's change of {module} is not whole",
            expected="a pair lora_A and lora_B",
            found=listed(names.values()),
            fix="Download the adapter again.",
        )
    a, b = (weights.shape(names[role]) for role in wanted)
    if len(a) == len(b) == 4 and 0 < b[1] < a[0]:
        raise CheckpointError(
            f"the adapter's change of {module} is of a convolution by groups",
            expected="layers whose change can be merged",
            fix="Train the adapter without this module; peft cannot merge it either.",
        )
    shape = _product_shape(a, b, is_embedding)
    if shape is None:
        raise CheckpointError(
            f"the adapter's change of {module} is not a pair of matrices",
            expected=f"lora_A of {rank} rows and lora_B of {rank} columns",
            found=f"{shape_text(a)} and {shape_text(b)}",
            fix="Save the adapter again; trained with ZeRO-3 or FSDP, gather its weights first.",
        )
    if a[0] != rank:
        raise CheckpointError(
            f"the adapter's rank of {module} is not what its configuration says",
            expected=rank,
            found=a[0],
            fix="Download the adapter again.",
        )
    if _MAGNITUDE in names:
        _check_magnitude(module, weights.shape(names[_MAGNITUDE]), b[0])
    return LoraDelta(dict(names), scale, shape)


def _check_magnitude(module: str, found: Shape, length: int) -> None:
    if math.prod(found) != length or max(found, default=0) != length:
        raise CheckpointError(
            f"the adapter's magnitude vector of {module}",
            expected=length,
            found=shape_text(found),
            fix="Download the adapter again.",
        )


def _product_shape(a: Shape, b: Shape, is_embedding: bool) -> Shape | None:
    """The shape of B A, transposed for an embedding; None where the two do not go together.

    A convolution's A has the kernel behind its two axes, and B a kernel of 1.
    """
    axes = (2,) if is_embedding else (2, 4)
    if len(a) != len(b) or len(a) not in axes or 0 in (*a, *b):
        return None
    if a[0] != b[1] or any(extent != 1 for extent in b[2:]):
        return None
    return (a[1], b[0]) if is_embedding else (b[0], *a[1:])


def _roles(is_embedding: bool) -> tuple[str, str]:
    return _EMBEDDING_PAIR if is_embedding else _PAIR


def _read(weights: Weights, name: str) -> Array:
    return weights.read(name).astype(np.float32)


def _flat(tensor: Array) -> Array:
    return tensor.reshape(tensor.shape[0], -1)
