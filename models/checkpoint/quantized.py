"""Tells by the names of tensors which other tool has quantized a checkpoint.

A tool that quantizes puts its own tensors in the place of, or next to, a layer's `weight`. Their
names are the only sign where the configuration does not say it: GPTQ and AWQ once kept theirs in
files of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# What a layer has, and whose it is; the first that fits. Names are those of the tools' own files.
_TOOLS = {
    "bitsandbytes": r"weight\.(absmax|quant_map|nested_absmax|quant_state\..*)|SCB|weight_format",
    "AQLM": r"codebooks|codes",
    "VPTQ": r"centroids|res_centroids|indices|res_indices",
    "FP-Quant": r"dqweight",
    "GPTQ or AWQ": r"qweight|qzeros|g_idx",
    "compressed-tensors": r"weight_packed|weight_zero_point|weight_shape|weight_global_scale",
    "HQQ": r"W_q",
    "Quanto": r"weight\._(data|scale|shift)",
    "EETQ": r"weight_scales",
    "torchao": r"_weight_(qdata|scale)",
    "FP8": r"weight_scale|weight_scale_inv|input_scale|activation_scale",
}
_PATTERNS = {tool: re.compile(rf".+\.({pattern})") for tool, pattern in _TOOLS.items()}


def quantizer(names: Iterable[str]) -> str | None:
    """Return the tool whose tensors are among `names`, or None."""
    ordered = tuple(names)
    for tool, pattern in _PATTERNS.items():
        if any(pattern.fullmatch(name) for name in ordered):
            return tool
    return None
