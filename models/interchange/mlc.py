"""Writes mlc-llm's format: `mlc-chat-config.json`, `tensor-cache.json` and its shards.

The decoder's parameters have the names and the layout of mlc-llm's `llama`: Q, K and V in one
matrix, gate and up in another, untransposed. mlc-llm has no MobileVLM, so that tower and projector
go next to them under their names in the checkpoint, where mlc-llm leaves them alone and
`models.checkpoint` finds them again.
"""

from __future__ import annotations

import contextlib
import io
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from mvlm.models.bit_packing import NIBBLES_PER_WORD
from mvlm.models.checkpoint import Checkpoint
from mvlm.models.checkpoint.names import expected_tensors
from mvlm.models.config import ClipVisionConfig, MobileVLMConfig
from mvlm.models.json_config import read_json_config
from mvlm.models.quantization import GROUP_SIZE, Q4MLC, to_float16
from mvlm.models.synthetic.documents import (
    clip_vision_document,
    preprocessor_document,
    write_json,
)
from mvlm.models.weight_files.mlc_weights import MLC_CONFIG, STACKED
from mvlm.models.weight_files.tensor_file import check_finite, read_start
from mvlm.models.weight_layout import ROWS, Matrix
from mvlm.runtime.errors import CheckpointError, UsageError
from mvlm.runtime.image import ImageSpec
from mvlm.runtime.input_file import is_present
from mvlm.runtime.template import VICUNA_V1

Array = npt.NDArray[Any]
Named = Iterator[tuple[str, Array]]
Progress = Callable[[int], None]

# mlc-llm's quantizations that are written, and the type of what they leave unquantized.
QUANTIZATIONS = {
    "q4f16_1": "float16",
    "q0f16": "float16",
    "q0bf16": "bfloat16",
    "q0f32": "float32",
}
_TOWER_FOLDER = "vision"
# The version of that file's schema.
_CONFIG_VERSION = "0.1.0"
_DOCUMENTS = ("config.json", "generation_config.json")
_TOKENIZER = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "added_tokens.json")


def write_mlc(
    config: MobileVLMConfig,
    checkpoint: Checkpoint,
    source: Path,
    folder: Path,
    *,
    quantization: str = "q4f16_1",
    progress: Progress = lambda nbytes: None,
) -> None:
    """Write a model in mlc-llm's format.

    Args:
        config: The model's.
        checkpoint: Its tensors.
        source: The checkpoint's folder, whose documents are copied.
        folder: Where; it exists.
        quantization: One of :data:`QUANTIZATIONS`.
        progress: Called with the bytes of the checkpoint's tensors that were written.

    Raises:
        UsageError: The quantization is unknown.
        CheckpointError: A weight does not fit into float16.
    """
    from tvm.contrib import tvmjs

    if quantization not in QUANTIZATIONS:
        raise UsageError(
            "unknown quantization", expected=" or ".join(QUANTIZATIONS), found=repr(quantization)
        )
    count = nbytes = 0

    def counted() -> Named:
        nonlocal count, nbytes
        for name, value in _parameters(config, checkpoint, quantization, progress):
            count, nbytes = count + 1, nbytes + value.nbytes
            yield name, value

    def metadata() -> dict[str, float]:
        weights = sum(math.prod(shape) for shape in expected_tensors(config).values())
        return {
            "ParamSize": count,
            "ParamBytes": float(nbytes),
            "BitsPerParam": 8 * nbytes / weights,
        }

    with contextlib.redirect_stdout(io.StringIO()):  # TVM's own report
        tvmjs.dump_tensor_cache(
            counted(), str(folder), encode_format="raw", meta_data=metadata, show_progress=False
        )
    tokenizer = _copy_documents(source, folder)
    write_json(folder / MLC_CONFIG, _chat_config(config, quantization, tokenizer))
    if config.vision is not None and config.image is not None:
        _write_vision_documents(config.vision, config.image, source, folder)


def _copy_documents(source: Path, folder: Path) -> list[str]:
    """Copy what mlc-llm reads besides the weights; return the names of the tokenizer's files."""
    found = [
        name for name in (*_TOKENIZER, *_DOCUMENTS) if is_present(source / name, CheckpointError)
    ]
    for name in found:
        read_start(source / name)  # which refuses a pointer in the file's place
        shutil.copyfile(source / name, folder / name)
    return [name for name in found if name in _TOKENIZER]


def _write_vision_documents(
    vision: ClipVisionConfig, image: ImageSpec, source: Path, folder: Path
) -> None:
    """Describe the tower, whose weights are among the decoder's here, in a folder of its own."""
    config = dict(read_json_config(source / "config.json").values)
    write_json(folder / "config.json", config | {"mm_vision_tower": _TOWER_FOLDER})
    tower = folder / _TOWER_FOLDER
    tower.mkdir()
    write_json(tower / "config.json", clip_vision_document(vision, "float16"))
    pixels = {"image_mean": list(image.mean), "image_std": list(image.std)}
    write_json(tower / "preprocessor_config.json", preprocessor_document(image.size) | pixels)


def _parameters(
    config: MobileVLMConfig, checkpoint: Checkpoint, quantization: str, progress: Progress
) -> Named:
    """Yield all parameters, one after the other."""
    dtype = QUANTIZATIONS[quantization]

    def read(names: tuple[str, ...]) -> Array:
        value = np.concatenate([checkpoint.read(name) for name in names])
        progress(sum(map(checkpoint.nbytes, names)))
        return value

    for name, sources in _language(config):
        matrix = read(sources)
        if quantization == "q4f16_1":
            rows, width = matrix.shape
            words, scales = ROWS.pack(matrix, Matrix(rows, width, Q4MLC), "nearest")
            yield f"{name}.q_weight", _whole_groups(words, scales)
            yield f"{name}.q_scale", scales
        else:
            yield f"{name}.weight", _stored(matrix, dtype, name)
    for name in expected_tensors(config):
        if not _is_matrix_of_language(name):
            yield name, _stored(read((name,)), dtype, name)


def _language(config: MobileVLMConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield mlc-llm's matrices, and what each is stacked of."""
    yield "model.embed_tokens", ("model.embed_tokens.weight",)
    for index in range(config.language.num_hidden_layers):
        layer = f"model.layers.{index}"
        for name, parts in STACKED.items():
            yield f"{layer}.{name}", tuple(f"{layer}.{part}.weight" for part in parts)
    if not config.language.tie_word_embeddings:
        yield "lm_head", ("lm_head.weight",)


def _is_matrix_of_language(name: str) -> bool:
    return name in ("model.embed_tokens.weight", "lm_head.weight") or (
        name.startswith("model.layers.") and name.endswith("_proj.weight")
    )


def _whole_groups(words: Array, scales: Array) -> Array:
    """Fill the last group of each row up, as mlc-llm stores it, with nibbles that mean zero."""
    missing = scales.shape[1] * GROUP_SIZE // NIBBLES_PER_WORD - words.shape[1]
    return np.pad(words, ((0, 0), (0, missing)), constant_values=0x77777777)


def _stored(value: Array, dtype: str, name: str) -> Array:
    if dtype == "float16":
        return to_float16(value, name, "Write it with q0bf16 or q0f32.")
    with np.errstate(over="ignore"):
        stored = value.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    return check_finite(name, stored)  # bfloat16 rounds the last float32 numbers up to infinity


def _chat_config(
    config: MobileVLMConfig, quantization: str, tokenizer: list[str]
) -> dict[str, Any]:
    language, generation = config.language, config.generation
    context = language.max_position_embeddings
    sizes = {
        "context_window_size": context,
        "prefill_chunk_size": min(2048, context),
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
    }
    unset = {"sliding_window_size": -1, "attention_sink_size": -1}
    return {
        "version": _CONFIG_VERSION,
        "model_type": "llama",
        "quantization": quantization,
        "model_config": {
            "hidden_size": language.hidden_size,
            "intermediate_size": language.intermediate_size,
            "num_attention_heads": language.num_attention_heads,
            "num_hidden_layers": language.num_hidden_layers,
            "rms_norm_eps": language.rms_norm_eps,
            "vocab_size": language.vocab_size,
            "tie_word_embeddings": language.tie_word_embeddings,
            "position_embedding_base": language.rope_theta,
            "rope_scaling": None,
            "num_key_value_heads": language.num_key_value_heads,
            "head_dim": language.head_dim,
            "max_batch_size": 1,
            "disaggregation": False,
            **sizes,
        },
        "vocab_size": language.vocab_size,
        "active_vocab_size": language.vocab_size,
        **sizes,
        **unset,
        "temperature": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "top_p": 1.0,
        "tokenizer_files": tokenizer,
        "tokenizer_info": {
            "token_postproc_method": "byte_fallback",
            "prepend_space_in_encode": True,
            "strip_space_in_decode": True,
        },
        "conv_template": _conversation(generation.bos_token_id, generation.eos_token_ids),
        "pad_token_id": generation.pad_token_id or 0,
        "bos_token_id": generation.bos_token_id,
        "eos_token_id": list(generation.eos_token_ids),
    }


def _conversation(bos: int, eos: tuple[int, ...]) -> dict[str, Any]:
    """Return vicuna v1 in mlc-llm's terms."""
    roles = VICUNA_V1.roles
    assert roles is not None
    return {
        "name": VICUNA_V1.name,
        "system_template": "{system_message}",
        "system_message": VICUNA_V1.system,
        "system_prefix_token_ids": [bos],
        "add_role_after_system_message": True,
        "roles": {"user": roles[0], "assistant": roles[1]},
        "role_templates": {
            "user": "{user_message}",
            "assistant": "{assistant_message}",
            "tool": "{tool_message}",
        },
        "messages": [],
        "seps": [VICUNA_V1.separator, *VICUNA_V1.stop],
        "role_content_sep": ": ",
        "role_empty_sep": ":",
        "stop_str": [],
        "stop_token_ids": list(eos),
        "function_string": "",
        "use_function_calling": False,
    }
