"""The signature of each operation: the contract between its definition, kernels and oracle.

A signature is a frozen dataclass of all that a kernel may depend on. It knows the operation's
parameters by name, with shape and dtype, makes the attributes of the definition, and is read back
from them. Models build it, schedules build kernels from it, the oracles make arguments for it, and
the tuner names its tasks by it.
"""

from __future__ import annotations

from typing import Any

from mvlm.models.ops.signatures.attention import (
    AppendSignature,
    AttentionSignature,
    CachedAttentionSignature,
    CacheOperation,
)
from mvlm.models.ops.signatures.convolution import DepthwiseConvolutionSignature
from mvlm.models.ops.signatures.embedding import EmbeddingSignature
from mvlm.models.ops.signatures.linear import (
    LinearLayer,
    LinearSignature,
    QuantizedLinearSignature,
)
from mvlm.models.ops.signatures.rowwise import QuantizeRowsSignature, RowFunction, RowwiseSignature
from mvlm.models.ops.signatures.signature import (
    ATTRIBUTE_PREFIX,
    FEW,
    FEW_ROWS,
    OP_ATTRIBUTE,
    ROWS,
    Parameter,
    RowCount,
    Signature,
    rows_extent,
)

__all__ = [
    "ATTRIBUTE_PREFIX",
    "FEW",
    "FEW_ROWS",
    "ROWS",
    "SIGNATURES",
    "AppendSignature",
    "AttentionSignature",
    "CacheOperation",
    "CachedAttentionSignature",
    "DepthwiseConvolutionSignature",
    "EmbeddingSignature",
    "LinearLayer",
    "LinearSignature",
    "Parameter",
    "QuantizeRowsSignature",
    "QuantizedLinearSignature",
    "RowCount",
    "RowFunction",
    "RowwiseSignature",
    "Signature",
    "parse_signature",
    "read_signature",
    "rows_extent",
]

# The class of every operation's signature, by the operation's name.
SIGNATURES: dict[str, type[Signature]] = {
    each.OP: each
    for each in (
        AppendSignature,
        AttentionSignature,
        CachedAttentionSignature,
        DepthwiseConvolutionSignature,
        EmbeddingSignature,
        LinearSignature,
        QuantizedLinearSignature,
        QuantizeRowsSignature,
        RowwiseSignature,
    )
}


def read_signature(function: Any) -> Signature | None:
    """Return the signature of a definition or a kernel, or None of any other function."""
    operation = (function.attrs or {}).get(OP_ATTRIBUTE, None)
    return None if operation is None else SIGNATURES[str(operation)].of(function)


def parse_signature(text: str) -> Signature:
    """Read a signature from its canonical text.

    Raises:
        ValueError: The text is none.
    """
    operation, _, _ = text.partition(" ")
    if operation not in SIGNATURES:
        raise ValueError(f"{operation[:40]!r} is no operation")
    return SIGNATURES[operation].parse(text)
