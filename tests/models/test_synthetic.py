"""Synthetic checkpoints: read back by our own readers, by torch and by safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from safetensors.torch import load_file

from mvlm.models.checkpoint import expected_tensors, open_checkpoint
from mvlm.models.config import LlamaConfig
from mvlm.models.config.read import read_config
from mvlm.models.model_zoo import CLIP, PUBLISHED_MODELS, PublishedModel
from mvlm.models.synthetic import write_synthetic
from mvlm.models.synthetic.checkpoint import published_projector
from mvlm.models.synthetic.tensors import clip_tensors, mobilevlm_tensors
from mvlm.models.synthetic.tokenizer import PIECES
from mvlm.models.synthetic.values import random_values
from mvlm.models.synthetic.weights import write_weights
from mvlm.models.weight_files import open_weights
from mvlm.models.weight_files.tensor_file import TensorInfo
from mvlm.runtime.errors import UsageError
from mvlm.runtime.tokenizer import Tokenizer

SMALL = PublishedModel(
    "small",
    (),
    LlamaConfig(
        vocab_size=32_000,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        rms_norm_eps=1e-6,
        rope_theta=10_000.0,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    ),
)
TENSORS = {
    "a": TensorInfo((3, 5), "bfloat16"),
    "b": TensorInfo((), "float32"),
    "c": TensorInfo((1, 7), "int64"),
    "d": TensorInfo((40, 30), "float16"),
    "e": TensorInfo((2, 2, 2), "float32"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_synthetic(SMALL, folder, seed=3)
    return folder


def value(name: str) -> np.ndarray:
    return random_values(name, TENSORS[name], 0)


@pytest.mark.parametrize("file_format", ["bin", "safetensors"])
@pytest.mark.parametrize("shard_bytes", [1, 500, 10**9])
def test_weight_files_hold_the_given_values(
    tmp_path: Path, file_format: str, shard_bytes: int
) -> None:
    """Against torch's and safetensors' own readers, in one file and in several."""
    counts: list[int] = []
    write_weights(
        tmp_path,
        TENSORS,
        value,
        file_format=file_format,
        shard_bytes=shard_bytes,
        progress=counts.append,
    )
    files = sorted(tmp_path.glob(f"*.{file_format}"))
    assert len(files) == {1: 5, 500: 3, 10**9: 1}[shard_bytes]
    found: dict[str, torch.Tensor] = {}
    for file in files:
        if file_format == "bin":
            found |= torch.load(file, weights_only=True)
        else:
            found |= load_file(file)
    assert found.keys() == TENSORS.keys()
    for name, info in TENSORS.items():
        expected = torch.from_numpy(np.array(value(name))).to(getattr(torch, info.dtype))
        assert found[name].dtype == expected.dtype
        assert found[name].shape == info.shape
        assert torch.equal(found[name], expected)
    assert sum(counts) == sum(info.nbytes for info in TENSORS.values())
    if len(files) > 1:
        index = json.loads(next(tmp_path.glob("*.index.json")).read_text())
        assert index["weight_map"].keys() == TENSORS.keys()
        assert index["metadata"]["total_size"] == sum(counts)


@pytest.mark.parametrize("file_format", ["bin", "safetensors"])
def test_weight_files_are_read_by_our_readers(tmp_path: Path, file_format: str) -> None:
    write_weights(tmp_path, TENSORS, value, file_format=file_format, shard_bytes=700)
    weights = open_weights(tmp_path)
    assert weights.names() == tuple(sorted(TENSORS))
    found = weights.read("a")
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found, value("a").astype(ml_dtypes.bfloat16))


def test_an_unknown_file_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown format.*'gguf'"):
        write_weights(tmp_path, TENSORS, value, file_format="gguf")


def test_a_checkpoint_is_whole(small: Path) -> None:
    config = read_config(small)
    assert config.language == SMALL.decoder
    assert config.warnings == ()
    report = open_checkpoint(small).check(expected_tensors(config))
    assert report.is_good
    assert not report.ignored
    assert {file.name for file in small.iterdir()} == {
        "config.json",
        "generation_config.json",
        "pytorch_model.bin",
        "special_tokens_map.json",
        "tokenizer.model",
        "tokenizer_config.json",
    }


def test_transformers_loads_a_checkpoint(small: Path) -> None:
    model, info = transformers.LlamaForCausalLM.from_pretrained(
        small, output_loading_info=True, torch_dtype="auto"
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.dtype == torch.bfloat16
    logits = model(torch.arange(1, 20)[None]).logits
    # At unit scale, as a trained model's are.
    assert 0.3 < logits.float().std() < 3


def test_values_depend_on_seed_and_name_only(small: Path, tmp_path: Path) -> None:
    write_synthetic(SMALL, tmp_path, seed=3, file_format="safetensors", shard_bytes=10**6)
    same, other = open_weights(small), open_weights(tmp_path)
    assert len(other.files()) > 3
    for name in same.names():
        np.testing.assert_array_equal(same.read(name), other.read(name))
    info = TensorInfo((4, 4), "float32")
    assert not np.array_equal(random_values("x", info, 0), random_values("x", info, 1))
    assert not np.array_equal(random_values("x", info, 0), random_values("y", info, 0))


def test_fewer_layers(tmp_path: Path) -> None:
    write_synthetic(SMALL, tmp_path, layers=1)
    config = read_config(tmp_path)
    assert config.language.num_hidden_layers == 1
    assert open_checkpoint(tmp_path).check(expected_tensors(config)).is_good


def test_the_tokenizer_has_llamas_pieces(small: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(small / "tokenizer.model"))
    assert processor.vocab_size() == PIECES == 32_000
    assert [processor.id_to_piece(i) for i in (0, 1, 2, 3, 258)] == [
        "<unk>", "<s>", "</s>", "<0x00>", "<0xFF>",
    ]  # fmt: skip
    tokenizer = Tokenizer(small / "tokenizer.model", legacy=False)
    for text in ("The quick brown fox", "Zürich, 3 €", "  two  spaces", "\n\t", "日本"):
        ids = processor.encode(text)
        assert processor.decode(ids) == text
        assert 0 not in ids
    assert tokenizer.vocab_size == PIECES


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_layouts_of_the_published_models(name: str) -> None:
    """Names and sizes, without writing gigabytes: V2's tower is inside with all its layers."""
    published = PUBLISHED_MODELS[name]
    tower = CLIP if published.tower_inside else None
    tensors = mobilevlm_tensors(published.decoder, published_projector(published), tower)
    assert {info.dtype for info in tensors.values()} == {"bfloat16"}
    inside = [name for name in tensors if name.startswith("model.vision_tower.vision_tower.")]
    assert len(inside) == (5 + 16 * 24 + 2 if published.tower_inside else 0)
    projected = [name for name in tensors if name.startswith("model.mm_projector.")]
    assert len(projected) == {None: 0, "ldpnet": 24, "ldpnetv2": 6}[published.projector]
    assert next(iter(tensors)) == "model.embed_tokens.weight"
    assert list(tensors)[-1] == "lm_head.weight"


def test_the_layout_of_a_whole_clip() -> None:
    tensors = clip_tensors(CLIP)
    with torch.device("meta"):
        config = transformers.CLIPConfig.from_dict(
            {
                "projection_dim": 768,
                "text_config": {
                    "hidden_size": 768,
                    "intermediate_size": 3072,
                    "num_attention_heads": 12,
                },
                "vision_config": {
                    "hidden_size": 1024,
                    "image_size": 336,
                    "intermediate_size": 4096,
                    "num_attention_heads": 16,
                    "num_hidden_layers": 24,
                    "patch_size": 14,
                },
            }
        )
        model = transformers.CLIPModel(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: info.shape for name, info in tensors.items() if info.dtype != "int64"}
    assert found == expected
