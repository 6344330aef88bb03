"""Writes GGUF files for llama.cpp: the decoder, and tower and projector as an `mmproj`.

Names and keys are those that llama.cpp's loaders read (its `llama` and `clip` architectures).
Where llama.cpp computes otherwise than MobileVLM, docs/interchange.md says how and how much.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from mvlm.models.checkpoint import Checkpoint
from mvlm.models.checkpoint.names import (
    PROJECTOR_PREFIX,
    TOWER_PREFIX,
    language_tensors,
    projector_tensors,
    tower_tensors,
)
from mvlm.models.config import ClipVisionConfig, LlamaConfig, MobileVLMConfig, ProjectorConfig
from mvlm.runtime.errors import CheckpointError, ConfigError, UsageError

if TYPE_CHECKING:
    import gguf

Array = npt.NDArray[Any]
Progress = Callable[[int], None]

TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")
_BLOCK = 32  # values of a row that share a scale in q8_0 and q4_0
# llama.cpp's code of both LDPs is written for this many patches along a side.
_LDP_GRID = 24


def _as_is(values: Array) -> Array:
    return values


@dataclass(frozen=True)
class _Tensor:
    """One tensor of the file.

    Attributes:
        name: llama.cpp's.
        source: The checkpoint's.
        shape: As it is written, outermost extent first.
        kind: llama.cpp's type of the values.
        arrange: Brings the checkpoint's values into the order and shape of the file's.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    kind: str
    arrange: Callable[[Array], Array] = _as_is


def write_language(
    config: MobileVLMConfig,
    checkpoint: Checkpoint,
    tokenizer: Path,
    path: Path,
    *,
    name: str,
    kind: str = "f16",
    progress: Progress = lambda nbytes: None,
) -> None:
    """Write the decoder.

    Args:
        config: The model's.
        checkpoint: Its tensors.
        tokenizer: The SentencePiece model.
        path: The file.
        name: The model's, for people.
        kind: What matrices are stored as, one of :data:`TYPES`.
        progress: Called with the bytes of each of the checkpoint's tensors that was written.

    Raises:
        UsageError: The type is unknown.
    """
    gguf = _import_gguf()
    if kind not in TYPES:
        raise UsageError("unknown type", expected=" or ".join(TYPES), found=repr(kind))
    writer = gguf.GGUFWriter(path, "llama")
    _describe_language(writer, config, name, kind)
    _describe_tokenizer(writer, config, tokenizer)
    _write_tensors(writer, list(_language(config.language, kind)), checkpoint, progress)


def write_vision(
    config: MobileVLMConfig,
    checkpoint: Checkpoint,
    path: Path,
    *,
    name: str,
    kind: str = "f16",
    progress: Progress = lambda nbytes: None,
) -> None:
    """Write tower and projector.

    Args:
        config: The model's, with a tower.
        checkpoint: Its tensors.
        path: The file.
        name: The model's, for people.
        kind: `f32`, or anything else for f16.
        progress: Called with the bytes of each of the checkpoint's tensors that was written.

    Raises:
        ConfigError: llama.cpp has no code for this model.
    """
    gguf = _import_gguf()
    vision, projector = config.vision, config.projector
    assert vision is not None and projector is not None, "a model of text only has no tower"
    _check_vision(config, vision, projector)
    kind = "f32" if kind == "f32" else "f16"
    writer = gguf.GGUFWriter(path, "clip")
    _describe_vision(writer, config, vision, projector, name, kind)
    tensors = [
        *_tower(vision, config.num_used_vision_layers, kind),
        *_projector(projector, kind),
    ]
    _write_tensors(writer, tensors, checkpoint, progress)


def _import_gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise UsageError(
            "GGUF files are written with the package gguf, which is not installed",
            fix="Run `pip install 'mvlm[convert]'`.",
        ) from None
    return gguf


def _check_vision(
    config: MobileVLMConfig, vision: ClipVisionConfig, projector: ProjectorConfig
) -> None:
    is_ldp = projector.kind in ("ldpnet", "ldpnetv2")
    if not is_ldp and (projector.kind, projector.depth) != ("mlp", 2):
        raise ConfigError(
            "llama.cpp has no code for this projector",
            expected="ldpnet, ldpnetv2 or mlp2x_gelu",
            found=projector.kind if projector.kind != "mlp" else f"mlp{projector.depth}x_gelu",
        )
    if is_ldp and vision.grid != _LDP_GRID:
        raise ConfigError(
            f"llama.cpp's projector is written for {_LDP_GRID}x{_LDP_GRID} patches",
            found=f"{vision.grid}x{vision.grid}",
        )
    if config.select_feature != "patch":
        raise ConfigError("llama.cpp drops the class token", found="`cls_patch`")


def _describe_language(
    writer: gguf.GGUFWriter, config: MobileVLMConfig, name: str, kind: str
) -> None:
    gguf, decoder = _import_gguf(), config.language
    writer.add_name(name)
    writer.add_vocab_size(decoder.vocab_size)
    writer.add_context_length(decoder.max_position_embeddings)
    writer.add_embedding_length(decoder.hidden_size)
    writer.add_block_count(decoder.num_hidden_layers)
    writer.add_feed_forward_length(decoder.intermediate_size)
    writer.add_rope_dimension_count(decoder.head_dim)
    writer.add_key_length(decoder.head_dim)
    writer.add_value_length(decoder.head_dim)
    writer.add_head_count(decoder.num_attention_heads)
    writer.add_head_count_kv(decoder.num_key_value_heads)
    writer.add_layer_norm_rms_eps(decoder.rms_norm_eps)
    writer.add_rope_freq_base(decoder.rope_theta)
    files = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
        "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
        "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    }
    writer.add_file_type(files[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _describe_tokenizer(writer: gguf.GGUFWriter, config: MobileVLMConfig, tokenizer: Path) -> None:
    import sentencepiece

    gguf = _import_gguf()
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.read_bytes())
    tokens, scores, types = [], [], []
    for piece in range(processor.vocab_size()):
        tokens.append(processor.id_to_piece(piece).encode())
        scores.append(processor.get_score(piece))
        types.append(_token_type(gguf.TokenType, processor, piece))
    # Rows of the embedding table that no piece belongs to.
    for row in range(len(tokens), config.language.vocab_size):
        tokens.append(f"<unused_{row}>".encode())
        scores.append(-10_000.0)
        types.append(gguf.TokenType.UNUSED)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    generation = config.generation
    writer.add_bos_token_id(generation.bos_token_id)
    writer.add_eos_token_id(generation.eos_token_ids[0])
    writer.add_unk_token_id(processor.unk_id())
    if generation.pad_token_id is not None:
        writer.add_pad_token_id(generation.pad_token_id)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)


def _token_type(kinds: Any, processor: Any, piece: int) -> Any:
    for test, kind in (
        (processor.is_unknown, kinds.UNKNOWN),
        (processor.is_control, kinds.CONTROL),
        (processor.is_unused, kinds.UNUSED),
        (processor.is_byte, kinds.BYTE),
    ):
        if test(piece):
            return kind
    return kinds.NORMAL


def _describe_vision(
    writer: gguf.GGUFWriter,
    config: MobileVLMConfig,
    vision: ClipVisionConfig,
    projector: ProjectorConfig,
    name: str,
    kind: str,
) -> None:
    gguf, layers = _import_gguf(), config.num_used_vision_layers
    image = config.image
    assert image is not None
    writer.add_name(name)
    writer.add_file_type(
        gguf.LlamaFileType.ALL_F32 if kind == "f32" else gguf.LlamaFileType.MOSTLY_F16
    )
    writer.add_bool("clip.has_text_encoder", False)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_llava_projector", True)
    projectors = {"ldpnet": "ldp", "ldpnetv2": "ldpv2", "mlp": "mlp"}
    writer.add_string("clip.projector_type", projectors[projector.kind])
    writer.add_bool("clip.use_gelu", vision.hidden_act == "gelu")
    for key, value in (
        ("image_size", vision.image_size),
        ("patch_size", vision.patch_size),
        ("embedding_length", vision.hidden_size),
        ("feed_forward_length", vision.intermediate_size),
        ("projection_dim", projector.out_features),
        ("attention.head_count", vision.num_attention_heads),
        ("block_count", layers),
    ):
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision.layer_norm_eps)
    # Without this, llama.cpp leaves out the last of the layers that the file has.
    writer.add_array("clip.vision.feature_layer", [layers])
    writer.add_array("clip.vision.image_mean", list(image.mean))
    writer.add_array("clip.vision.image_std", list(image.std))


def _language(config: LlamaConfig, kind: str) -> Iterator[_Tensor]:
    renamed = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    top = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for source, shape in language_tensors(config):
        if source in top:
            # What every token reads stays finer, as llama.cpp's own quantizer has it.
            finer = "q8_0" if kind == "q4_0" else kind
            yield _Tensor(top[source], source, shape, _kind_for(shape, finer))
            continue
        match = re.fullmatch(r"model\.layers\.(\d+)\.(.*)\.weight", source)
        assert match, source
        part = renamed[match[2]]
        yield _Tensor(
            f"blk.{match[1]}.{part}.weight",
            source,
            shape,
            _kind_for(shape, kind),
            _interleave(heads[part]) if part in heads else _as_is,
        )


def _interleave(heads: int) -> Callable[[Array], Array]:
    """Return what reorders a projection's rows for llama.cpp, whose rotary pairs are neighbours.

    LLaMA's checkpoints as transformers writes them pair a head's halves.
    """

    def arrange(values: Array) -> Array:
        rows, width = values.shape
        halves = values.reshape(heads, 2, rows // heads // 2, width)
        return halves.swapaxes(1, 2).reshape(rows, width)

    return arrange


def _tower(config: ClipVisionConfig, layers: int, kind: str) -> Iterator[_Tensor]:
    renamed = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.out_proj": "attn_out",
        "layer_norm1": "ln1",
        "layer_norm2": "ln2",
        "mlp.fc1": "ffn_up",
        "mlp.fc2": "ffn_down",
    }
    top = {
        "embeddings.class_embedding": "v.class_embd",
        "embeddings.patch_embedding.weight": "v.patch_embd.weight",
        "embeddings.position_embedding.weight": "v.position_embd.weight",
        "pre_layrnorm.weight": "v.pre_ln.weight",
        "pre_layrnorm.bias": "v.pre_ln.bias",
    }
    for source, shape in tower_tensors(config, layers):
        name = source.removeprefix(TOWER_PREFIX)
        if name in top:
            # Positions are read as they are: llama.cpp adds them in float32.
            is_position = name.startswith("embeddings.position")
            kept = _kind_for(shape, "f32" if is_position else kind)
            yield _Tensor(top[name], source, shape, kept)
            continue
        match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)", name)
        assert match, name
        yield _Tensor(
            f"v.blk.{match[1]}.{renamed[match[2]]}.{match[3]}",
            source,
            shape,
            _kind_for(shape, kind),
        )


def _projector(config: ProjectorConfig, kind: str) -> Iterator[_Tensor]:
    for source, shape in projector_tensors(config):
        name = source.removeprefix(PROJECTOR_PREFIX)
        if config.kind == "ldpnet":
            name = f"mm.{name}"
        elif config.kind == "ldpnetv2":
            name = "mm.model." + name.replace("mlp.mlp.", "mlp.").replace("peg.peg.", "peg.")
        else:
            name = f"mm.{name}"
        # 1x1 convolutions are matrices, depthwise ones a kernel for each channel.
        squeezed = tuple(extent for extent in shape if extent != 1)
        yield _Tensor(name, source, squeezed, _kind_for(squeezed, kind), _reshape(squeezed))


def _reshape(shape: tuple[int, ...]) -> Callable[[Array], Array]:
    return lambda values: values.reshape(shape)


def _kind_for(shape: tuple[int, ...], kind: str) -> str:
    """Vectors stay float32; a matrix whose rows are no whole blocks stays half precision.

    So do depthwise kernels ``(C, 3, 3)``, whose products llama.cpp computes in that alone.
    """
    if len(shape) == 1:
        return "f32"
    if len(shape) == 3:
        return "f16"
    return "f16" if kind.startswith("q") and shape[-1] % _BLOCK else kind


def _write_tensors(
    writer: gguf.GGUFWriter, tensors: list[_Tensor], checkpoint: Checkpoint, progress: Progress
) -> None:
    """Announce all tensors, then write them one by one."""
    gguf = _import_gguf()
    kinds = {kind: getattr(gguf.GGMLQuantizationType, kind.upper()) for kind in TYPES}
    try:
        for tensor in tensors:
            bytes_shape = gguf.quant_shape_to_byte_shape(tensor.shape, kinds[tensor.kind])
            writer.add_tensor_info(
                tensor.name,
                bytes_shape,
                np.dtype(np.uint8),
                int(np.prod(bytes_shape)),
                raw_dtype=kinds[tensor.kind],
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            values = tensor.arrange(checkpoint.read(tensor.source).astype(np.float32))
            with np.errstate(over="ignore", invalid="ignore"):
                encoded = gguf.quants.quantize(np.ascontiguousarray(values), kinds[tensor.kind])
            _refuse_overflow(tensor, encoded)
            writer.write_tensor_data(np.ascontiguousarray(encoded).view(np.uint8))
            progress(checkpoint.nbytes(tensor.source))
    finally:
        writer.close()


# What a tensor's values, or its blocks' scales, are stored in.
_FLOATS = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "q8_0": "q8_0, whose scales are float16",
    "q4_0": "q4_0, whose scales are float16",
}


def _refuse_overflow(tensor: _Tensor, encoded: Array) -> None:
    if not np.isfinite(_stored_floats(tensor.kind, encoded)).all():
        raise CheckpointError(
            f"weights of {tensor.source} do not fit into {_FLOATS[tensor.kind]}",
            fix=f"Write it with --type {'f32' if tensor.kind == 'bf16' else 'bf16 or f32'}.",
        )


def _stored_floats(kind: str, encoded: Array) -> Array:
    """The floating-point numbers that a tensor is stored by: its values, or its blocks' scales."""
    if kind == "bf16":
        return encoded.view(ml_dtypes.bfloat16)
    if kind.startswith("q"):
        block_bytes = {"q8_0": 34, "q4_0": 18}[kind]  # a float16 scale and 32 values
        return encoded.reshape(-1, block_bytes)[:, :2].copy().view(np.float16)
    return encoded
