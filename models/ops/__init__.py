"""The heavy operations, each defined once by a reference implementation.

An operation has a signature (see `signatures`), and a definition: a TensorIR function that carries
the signature as attributes. The definition is plain and slow: it is the reference that a kernel
must agree with, and it runs where there is no kernel. The compiler replaces it by the kernel that
``schedules`` has for the target; since the function is marked opaque, fusion leaves it alone until
then.
"""

from mvlm.models.ops.attention import attention
from mvlm.models.ops.convolution import depthwise_convolution
from mvlm.models.ops.embedding import embedding
from mvlm.models.ops.kv_cache import append_to_cache, cached_attention
from mvlm.models.ops.linear import linear
from mvlm.models.ops.rowwise import GELU, IDENTITY, SILU_PRODUCT, Prologue, rowwise

__all__ = [
    "GELU",
    "IDENTITY",
    "SILU_PRODUCT",
    "Prologue",
    "append_to_cache",
    "attention",
    "cached_attention",
    "depthwise_convolution",
    "embedding",
    "linear",
    "rowwise",
]
