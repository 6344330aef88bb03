"""GGUF: read back by gguf's own reader; by llama.cpp in `test_llama_cpp`, on demand."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from mvlm.models.checkpoint import open_checkpoint
from mvlm.models.config.read import read_config
from mvlm.models.interchange import Conversion, convert
from mvlm.runtime.errors import CheckpointError, ConfigError, UsageError
from tests.artifacts import ArtifactCache
from tests.reference import write_random_checkpoint


def read(path: Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in reader.tensors
    }
    return fields, tensors


# The largest error in units of a row's largest weight.
KINDS = {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 1 / 127, "q4_0": 1 / 7}


@pytest.mark.parametrize("kind", KINDS)
def test_decoder_tensors(artifact_cache: ArtifactCache, tmp_path: Path, kind: str) -> None:
    checkpoint = artifact_cache.checkpoint("linear")
    convert(artifact_cache.checkpoint("text"), tmp_path, Conversion("gguf", kind))
    checkpoint = artifact_cache.checkpoint("text")
    fields, tensors = read(tmp_path / f"model-{kind}.gguf")
    config, plain = read_config(checkpoint).language, open_checkpoint(checkpoint)
    assert fields["general.architecture"] == "llama"
    assert fields["llama.block_count"] == config.num_hidden_layers
    assert fields["llama.attention.head_count"] == config.num_attention_heads
    assert fields["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(config.rms_norm_eps)
    assert len(tensors) == 3 + 9 * config.num_hidden_layers
    down = plain.read("model.layers.1.mlp.down_proj.weight")
    error = np.abs(tensors["blk.1.ffn_down.weight"] - down).max()
    assert error <= KINDS[kind] * np.abs(down).max()
    # llama.cpp rotates neighbouring rows where the checkpoint pairs a head's halves.
    query = plain.read("model.layers.0.self_attn.q_proj.weight")
    found, half = tensors["blk.0.attn_q.weight"], config.head_dim // 2
    for row in (0, 1, 2, config.head_dim, config.head_dim + 3):
        head, inside = divmod(row, config.head_dim)
        source = head * config.head_dim + inside // 2 + (inside % 2) * half
        np.testing.assert_allclose(
            found[row], query[source], atol=KINDS[kind] * np.abs(query).max()
        )


def test_tokenizer_metadata(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    convert(artifact_cache.checkpoint("text"), tmp_path, Conversion("gguf"))
    fields, _ = read(tmp_path / "model-f16.gguf")
    config = read_config(artifact_cache.checkpoint("text"))
    assert len(fields["tokenizer.ggml.tokens"]) == config.language.vocab_size
    assert fields["tokenizer.ggml.tokens"][:3] == ["<unk>", "<s>", "</s>"]
    kinds = gguf.TokenType
    assert fields["tokenizer.ggml.token_type"][:3] == [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
    assert fields["tokenizer.ggml.bos_token_id"] == 1


@pytest.fixture(scope="module", params=["ldpnet", "ldpnetv2", "mlp2x_gelu"])
def seeing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with the grid of patches that llama.cpp's projectors are written for."""
    folder = tmp_path_factory.mktemp("gguf") / request.param
    return write_random_checkpoint(
        folder, request.param, seed=0, vision={"image_size": 96, "patch_size": 4}
    )


def test_tower_and_projector_tensors(seeing: Path, tmp_path: Path) -> None:
    convert(seeing, tmp_path, Conversion("gguf", "f32"))
    fields, tensors = read(tmp_path / "mmproj-f32.gguf")
    config, plain = read_config(seeing), open_checkpoint(seeing)
    used = config.num_used_vision_layers
    assert fields["clip.vision.block_count"] == used
    assert fields["clip.vision.feature_layer"] == [used]
    assert fields["clip.use_gelu"] is (config.vision.hidden_act == "gelu")
    tower = "vision_tower.vision_model."
    for name, source in {
        "v.position_embd.weight": f"{tower}embeddings.position_embedding.weight",
        "v.patch_embd.weight": f"{tower}embeddings.patch_embedding.weight",
        "v.pre_ln.bias": f"{tower}pre_layrnorm.bias",
        "v.blk.1.ffn_up.weight": f"{tower}encoder.layers.1.mlp.fc1.weight",
        "v.blk.1.attn_out.bias": f"{tower}encoder.layers.1.self_attn.out_proj.bias",
    }.items():
        np.testing.assert_array_equal(tensors[name], plain.read(source))
    assert f"v.blk.{used}.ln1.weight" not in tensors
    projector = sorted(name for name in tensors if name.startswith("mm."))
    assert len(projector) == {"ldpnet": 24, "ldpnetv2": 6, "mlp": 4}[config.projector.kind]


@pytest.mark.parametrize("family", ["linear", "mlp3x_gelu", "ldpnet"])
def test_models_that_llama_cpp_cannot_run_are_refused(
    artifact_cache: ArtifactCache, tmp_path: Path, family: str
) -> None:
    with pytest.raises(ConfigError, match=r"llama\.cpp"):
        convert(artifact_cache.checkpoint(family), tmp_path, Conversion("gguf"))


def test_text_only_gguf_leaves_out_the_tower(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    # llama.cpp has no code for this tower's grid of patches, which does not matter then.
    convert(artifact_cache.checkpoint("ldpnet"), tmp_path, Conversion("gguf", text_only=True))
    assert [path.name for path in tmp_path.iterdir()] == ["model-f16.gguf"]


def test_an_unknown_gguf_type_is_refused(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown type.*q4_0.*'q5'"):
        convert(artifact_cache.checkpoint("text"), tmp_path, Conversion("gguf", "q5"))


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    checkpoint = write_random_checkpoint(tmp_path / "model", "text", seed=0)
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"up_proj.*float16.*bf16"):
        convert(checkpoint, tmp_path, Conversion("gguf"))
