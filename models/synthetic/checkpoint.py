"""Writes the files of a synthetic checkpoint: a release's documents, random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvlm.models.config.llama import LlamaConfig
from mvlm.models.config.projector import ProjectorConfig, parse_projector_type
from mvlm.models.model_zoo import CLIP, CLIP_REPOSITORY, PublishedModel
from mvlm.models.synthetic import documents
from mvlm.models.synthetic.tensors import Tensors, clip_tensors, mobilevlm_tensors
from mvlm.models.synthetic.tokenizer import synthetic_tokenizer
from mvlm.models.synthetic.values import random_values
from mvlm.models.synthetic.weights import SHARD_BYTES, write_weights

# Called with the bytes written and the bytes of all.
Progress = Callable[[int, int], None]


def write_synthetic(
    published: PublishedModel,
    folder: Path,
    *,
    seed: int = 0,
    layers: int | None = None,
    file_format: str = "bin",
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write a checkpoint in the layout of a published one, with random weights.

    The tower of a MobileVLM V1 lies in a folder of its own: :func:`write_synthetic_clip`.

    Args:
        published: The published model.
        folder: An empty folder.
        seed: Of the weights.
        layers: Decoder layers, where the published number is too many to try something out.
        file_format: `bin`, as the releases are, or `safetensors`.
        shard_bytes: What a weight file holds at the most.
        progress: Called as the weights are written.

    Raises:
        CheckpointError: torch, which alone writes `bin`, is not installed.
    """
    decoder = _decoder(published, layers)
    documents.write_json(folder / "config.json", published_config(published, layers))
    documents.write_json(folder / "generation_config.json", documents.generation_document())
    documents.write_json(
        folder / "tokenizer_config.json",
        documents.tokenizer_document(decoder.max_position_embeddings, legacy=False),
    )
    documents.write_json(folder / "special_tokens_map.json", documents.special_tokens_document())
    (folder / "tokenizer.model").write_bytes(synthetic_tokenizer())
    tensors = mobilevlm_tensors(
        decoder, published_projector(published), CLIP if published.tower_inside else None
    )
    _write(folder, tensors, seed, file_format, shard_bytes, progress)


def write_synthetic_clip(
    folder: Path,
    *,
    seed: int = 0,
    file_format: str = "bin",
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write the folder of a whole CLIP ViT-L/14 at 336 pixels, the tower of every V1.

    Arguments and errors are those of :func:`write_synthetic`.
    """
    documents.write_json(folder / "config.json", documents.clip_document(CLIP))
    documents.write_json(
        folder / "preprocessor_config.json", documents.preprocessor_document(CLIP.image_size)
    )
    _write(folder, clip_tensors(CLIP), seed, file_format, shard_bytes, progress)


def published_config(published: PublishedModel, layers: int | None = None) -> dict[str, Any]:
    """Return the `config.json` of a published model; `layers` as in :func:`write_synthetic`."""
    decoder = _decoder(published, layers)
    if published.projector is None:
        values = documents.llama_document(decoder, "bfloat16")
    else:
        values = documents.mobilevlm_document(
            decoder, CLIP_REPOSITORY, CLIP.hidden_size, published.projector, "bfloat16"
        )
    return values | dict(published.stale_keys)


def _decoder(published: PublishedModel, layers: int | None) -> LlamaConfig:
    return replace(
        published.decoder, num_hidden_layers=layers or published.decoder.num_hidden_layers
    )


def published_projector(published: PublishedModel) -> ProjectorConfig | None:
    """Return the projector of a published model; None for a model of text only."""
    if published.projector is None:
        return None
    kind, depth = parse_projector_type(published.projector)
    return ProjectorConfig(kind, depth, CLIP.hidden_size, published.decoder.hidden_size)


def _write(
    folder: Path,
    tensors: Tensors,
    seed: int,
    file_format: str,
    shard_bytes: int,
    progress: Progress,
) -> None:
    total, done = sum(info.nbytes for info in tensors.values()), 0

    def written(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    write_weights(
        folder,
        tensors,
        lambda name: random_values(name, tensors[name], seed),
        file_format=file_format,
        shard_bytes=shard_bytes,
        progress=written,
    )
