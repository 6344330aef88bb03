"""The configuration of a model in mlc-llm's format, in a checkpoint's own terms."""

from __future__ import annotations

from pathlib import Path

from mvlm.models.config.document import Document, read_document

MLC_CONFIG = "mlc-chat-config.json"

# mlc-llm's names, where they differ, of what we read.
_RENAMED = {
    "position_embedding_base": "rope_theta",
    "context_window_size": "max_position_embeddings",
}
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def checkpoint_document(folder: Path) -> Document:
    """Read a folder's `config.json`, or work one out of an `mlc-chat-config.json`.

    Raises:
        ConfigError: There is neither, or the file is not usable.
    """
    path = folder / "config.json"
    if path.exists() or not (folder / MLC_CONFIG).exists():
        return read_document(path)
    chat = read_document(folder / MLC_CONFIG)
    if chat.require("model_type") != "llama":
        chat.refuse("model_type", "'llama'")
    model = chat.section("model_config")
    values = {_RENAMED.get(key, key): value for key, value in model.values.items()}
    values |= {key: chat.values[key] for key in _TOKENS if key in chat}
    return Document(model.name, {"hidden_act": "silu", **values})
