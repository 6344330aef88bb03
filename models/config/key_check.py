"""Holds a checkpoint's JSON files against the tables of :mod:`mvlm.models.config.keys`.

Also refuses a checkpoint that says that another tool has quantized it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mvlm.models.config.keys import Key, KeyTable
from mvlm.models.json_config import JsonConfig, short_repr
from mvlm.models.weight_files.tensor_file import USE_UNQUANTIZED
from mvlm.runtime.errors import ConfigError

# How many unknown keys a warning lists before it only counts.
_LISTED = 8

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


def check_keys(document: JsonConfig, table: KeyTable, label: str) -> tuple[str, ...]:
    """Refuse what the file asks for and is not computed; report what is ignored.

    Args:
        document: The file, or an object inside one.
        table: Its keys.
        label: What warnings call the file; not its path, which differs between machines.

    Returns:
        Warnings, one sentence each.

    Raises:
        ConfigError: A fixed key has another value than those that are accepted.
    """
    keys = dict(table.rows())
    warnings, unknown = [], []
    for name, value in document.values.items():
        key = keys.get(name)
        if key is None:
            # Null, false, zero and emptiness ask for nothing.
            unknown += [name] if value else []
        elif key.role == "fixed" and not _is_accepted(value, key):
            document.refuse(name, accepted_text(key))
        elif key.role == "reported" and not _is_accepted(value, key):
            warnings.append(f"{label}: `{name}` is ignored: {key.note}")
    if unknown:
        warnings.append(f"{label}: unknown keys are ignored: {_listed(unknown)}")
    return tuple(warnings)


def refuse_unknown(document: JsonConfig, table: KeyTable) -> None:
    """Refuse keys that stand in no table, for an object whose every key matters.

    Raises:
        ConfigError: There is one.
    """
    known = [name for name, _ in table.rows()]
    for name, value in document.values.items():
        if name not in known and value is not None:
            document.refuse(name, "no such key: only " + ", ".join(known))


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


def is_same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are equal; true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def accepted_text(key: Key) -> str:
    """Say what a fixed key may be, and why."""
    values = [json.dumps(value) for value in key.values] or ["null"]
    return f"{' or '.join(values)} ({key.note})"


def _is_accepted(value: Any, key: Key) -> bool:
    return value is None or any(is_same(value, accepted) for accepted in key.values)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    # A name from a file may be of any length and hold anything.
    plain = [
        name if name.isidentifier() and len(name) <= 64 else short_repr(name) for name in ordered
    ]
    rest = len(plain) - _LISTED
    return ", ".join(plain[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _tool(section: JsonConfig) -> str:
    method = section.get("quant_method")
    if method is None and any(key.startswith(("load_in_", "bnb_")) for key in section.values):
        return "bitsandbytes"  # which wrote no method at first
    if not isinstance(method, str):
        return "a tool that it does not name"
    return _TOOLS.get(method.lower(), method[:64])
