"""The configuration of a model in mlc-llm's format, in a checkpoint's own terms."""

from __future__ import annotations

from pathlib import Path

from mvlm.models.config.key_check import check_keys, refuse_quantized
from mvlm.models.config.keys import CONFIG, MLC, MLC_MODEL
from mvlm.models.json_config import JsonConfig, read_json_config
from mvlm.models.weight_files.mlc_weights import MLC_CONFIG
from mvlm.runtime.errors import ConfigError
from mvlm.runtime.input_file import is_present

# mlc-llm's names, where they differ, of what we read.
_RENAMED = {
    "position_embedding_base": "rope_theta",
    "context_window_size": "max_position_embeddings",
}
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def check_checkpoint_keys(folder: Path) -> tuple[str, ...]:
    """Check every key of what :func:`checkpoint_document` reads; return warnings.

    Raises:
        ConfigError: A key asks for what is not supported.
    """
    if not _is_mlc(folder):
        return check_keys(read_json_config(folder / "config.json"), CONFIG, "config.json")
    chat = read_json_config(folder / MLC_CONFIG)
    warnings = check_keys(chat, MLC, MLC_CONFIG)
    return warnings + check_keys(chat.section("model_config"), MLC_MODEL, MLC_CONFIG)


def checkpoint_document(folder: Path) -> JsonConfig:
    """Read a folder's `config.json`, or work one out of an `mlc-chat-config.json`.

    Raises:
        ConfigError: There is neither, or the file is not usable.
    """
    if not _is_mlc(folder):
        document = read_json_config(folder / "config.json")
        refuse_quantized(document)
        return document
    chat = read_json_config(folder / MLC_CONFIG)
    if chat.require("model_type") != "llama":
        chat.refuse("model_type", "'llama'")
    model = chat.section("model_config")
    for own, ours in _RENAMED.items():
        if own in model and ours in model:
            model.refuse(own, f"either this key or `{ours}`, not both")
    values = {
        _RENAMED.get(key, key): value for key, value in model.values.items() if value is not None
    }
    values |= {key: chat.values[key] for key in _TOKENS if key in chat}
    return JsonConfig(model.name, {"hidden_act": "silu", **values})


def _is_mlc(folder: Path) -> bool:
    """Whether mlc-llm's file is all that says what the model is."""
    if is_present(folder / "config.json", ConfigError):
        return False
    return is_present(folder / MLC_CONFIG, ConfigError)
