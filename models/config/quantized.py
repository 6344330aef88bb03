"""Refuses a checkpoint that says that another tool has quantized it."""

from __future__ import annotations

from mvlm.models.json_config import JsonConfig
from mvlm.models.weight_files.tensor_file import USE_UNQUANTIZED
from mvlm.runtime.errors import ConfigError

# Where files say so: transformers' key, and an older one of compressed-tensors.
_SECTIONS = ("quantization_config", "compression_config")
# The names of `quant_method` as their tools write themselves.
_TOOLS = {
    "bitsandbytes": "bitsandbytes",
    "gptq": "GPTQ",
    "awq": "AWQ",
    "aqlm": "AQLM",
    "hqq": "HQQ",
    "eetq": "EETQ",
    "vptq": "VPTQ",
    "quanto": "Quanto",
    "higgs": "HIGGS",
    "spqr": "SpQR",
    "fp8": "fine-grained FP8",
    "fbgemm_fp8": "FBGEMM FP8",
    "modelopt": "ModelOpt",
}


def refuse_quantized(document: JsonConfig) -> None:
    """Refuse a configuration that describes quantized weights, by the tool's name.

    Raises:
        ConfigError: It does.
    """
    for key in _SECTIONS:
        if document.get(key) in (None, {}):
            continue
        section = document.section(key)
        raise ConfigError(
            f"{document.name}: the checkpoint is quantized with {_tool(section)} (`{key}`)",
            expected="weights in float32, float16 or bfloat16",
            fix=USE_UNQUANTIZED,
        )


def _tool(section: JsonConfig) -> str:
    method = section.get("quant_method")
    if method is None and any(key.startswith(("load_in_", "bnb_")) for key in section.values):
        return "bitsandbytes"  # which wrote no method at first
    if not isinstance(method, str):
        return "a tool that it does not name"
    return _TOOLS.get(method.lower(), method[:64])
