"""Checkpoints and toolchains that cannot be compiled, and what is written when they can."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from mvlm.compile import driver, memory
from mvlm.compile.driver import compile_job, pack_job
from mvlm.compile.job import plan_job
from mvlm.compile.toolchain import find
from mvlm.models.quantization import Q4MLC, plan_quantization
from mvlm.runtime.artifact import layout, map_weights, verify_artifact
from mvlm.runtime.artifact.weights import read_weights_index
from mvlm.runtime.errors import CheckpointError, MvlmError, TargetError, TokenizerError, UsageError
from mvlm.runtime.settings import read_settings
from tests.artifacts import ArtifactCache
from tests.models.rounding import to_q4
from tests.models.stored_rows import read_rows
from tests.no_code import generate_no_code
from tests.panels import from_panels
from tests.reference import write_random_checkpoint
from tests.reference.checkpoints import save_weights
from tests.reference.model import load_tensors

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_random_checkpoint(tmp_path / "model", "text", seed=0, num_hidden_layers=1)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output" / "artifact"


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not what most of these tests are about."""
    generate_no_code(monkeypatch)


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace or (None) remove tensors; dots are written as double underscores."""
    tensors = load_tensors(folder)
    for name, tensor in changes.items():
        tensors.pop(name.replace("__", "."))
        if tensor is not None:
            tensors[name.replace("__", ".")] = tensor
    save_weights(folder, tensors, file_format="safetensors")


def refuse(folder: Path, output: Path, kind: type[MvlmError], match: str) -> None:
    """Assert that compiling fails and leaves nothing behind."""
    with pytest.raises(kind, match=match):
        compile_job(plan_job(folder, quantization="q0f32"), output)
    assert not output.exists()
    assert not output.parent.exists() or not list(output.parent.iterdir())


# --- weights ------------------------------------------------------------------------------------


def test_a_missing_shard(tmp_path: Path, output: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "sharded", "text", seed=0, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    refuse(folder, output, CheckpointError, r"lists files that are not next to it: model-00002")


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
def test_a_truncated_shard(tmp_path: Path, output: Path, file_format: str) -> None:
    folder = write_random_checkpoint(
        tmp_path / "sharded", "text", seed=0, shards=2, file_format=file_format
    )
    shard = next(folder.glob(f"*00002-of-00002.{file_format}"))
    os.truncate(shard, shard.stat().st_size // 2)
    refuse(folder, output, CheckpointError, shard.name)


def test_a_missing_tensor(checkpoint: Path, output: Path) -> None:
    rewrite(checkpoint, model__norm__weight=None)
    refuse(checkpoint, output, CheckpointError, r"missing.*model\.norm\.weight|model\.norm\.weight")


def test_a_misshapen_tensor(checkpoint: Path, output: Path) -> None:
    rewrite(checkpoint, model__norm__weight=torch.ones(127))
    refuse(checkpoint, output, CheckpointError, r"model\.norm\.weight.*128.*127")


def test_a_tensor_of_another_dtype(checkpoint: Path, output: Path) -> None:
    rewrite(checkpoint, model__norm__weight=torch.ones(128, dtype=torch.int8))
    refuse(checkpoint, output, CheckpointError, r"not float32.*model\.norm\.weight \(I8\)")


@pytest.mark.usefixtures("no_code")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(checkpoint: Path, output: Path, value: float) -> None:
    weight = load_tensors(checkpoint)[Q_PROJ]
    weight[3, 5] = value
    rewrite(checkpoint, **{Q_PROJ.replace(".", "__"): weight})
    refuse(checkpoint, output, CheckpointError, rf"{Q_PROJ} holds NaN.*found 1 of")


@pytest.mark.usefixtures("no_code")
def test_opposite_infinities_do_not_cancel(checkpoint: Path, output: Path) -> None:
    weight = load_tensors(checkpoint)[Q_PROJ]
    weight[0, 0], weight[0, 1] = float("inf"), float("-inf")
    rewrite(checkpoint, **{Q_PROJ.replace(".", "__"): weight})
    refuse(checkpoint, output, CheckpointError, "found 2 of")


@pytest.mark.usefixtures("no_code")
def test_weights_that_are_not_finite_replaced_if_asked_for(checkpoint: Path, output: Path) -> None:
    weight = load_tensors(checkpoint)[Q_PROJ]
    weight[0, 0], weight[0, 1], weight[1, 0] = float("inf"), float("-inf"), float("nan")
    rewrite(checkpoint, **{Q_PROJ.replace(".", "__"): weight})
    compile_job(plan_job(checkpoint, quantization="q0f32", allow_nonfinite=True), output)
    names = [entry.name for entry in read_weights_index(output).tensors]
    arrays = dict(zip(names, map_weights(output), strict=True))
    packed = from_panels(arrays["decoder.layers.0.attention.qkv.weight"], 2)
    assert [packed[0, 0], packed[0, 1], packed[1, 0]] == [65504, -65504, 0]
    assert np.isfinite(packed).all()


@pytest.mark.usefixtures("no_code")
def test_too_little_memory(checkpoint: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 100 << 20)
    refuse(checkpoint, output, TargetError, r"too little memory.*expected about 0\.7 GB.*0\.1 GB")
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: None)
    compile_job(plan_job(checkpoint), output)


@pytest.mark.usefixtures("no_code")
def test_each_part_has_its_own_scheme(checkpoint: Path, output: Path) -> None:
    schemes = plan_quantization("q4a8", embedding="q0f16", head="q8a8")
    compile_job(plan_job(checkpoint, quantization=schemes), output)
    dtypes = {entry.name: entry.dtype for entry in read_weights_index(output).tensors}
    assert dtypes["decoder.embed_tokens.weight"] == "float16"
    shapes = {entry.name: entry.shape for entry in read_weights_index(output).tensors}
    # A step of a group has 64 bytes: of 8-bit weights there are 8, of 4-bit ones 4.
    assert shapes["decoder.lm_head.q_weight"][2:] == (8, 64)
    assert shapes["decoder.layers.0.down.q_weight"][2:] == (4, 64)
    assert dtypes["decoder.norm.weight"] == "float32"


@pytest.mark.usefixtures("no_code")
def test_large_weights_are_no_infinities(checkpoint: Path, output: Path) -> None:
    """Their sum is beyond float32."""
    large = np.full(128, 3e38, np.float32)
    rewrite(checkpoint, model__norm__weight=torch.from_numpy(large))
    compile_job(plan_job(checkpoint, quantization="q0f32"), output)
    names = [entry.name for entry in read_weights_index(output).tensors]
    arrays = dict(zip(names, map_weights(output), strict=True))
    np.testing.assert_array_equal(arrays["decoder.norm.weight"], large)


@pytest.mark.usefixtures("no_code")
def test_weights_beyond_float16(checkpoint: Path, output: Path) -> None:
    weight = load_tensors(checkpoint)[Q_PROJ]
    weight[3, 5] = 1e5
    rewrite(checkpoint, **{Q_PROJ.replace(".", "__"): weight})
    with pytest.raises(CheckpointError, match=r"q_proj.*do not fit into float16.*q0f32"):
        compile_job(plan_job(checkpoint, quantization="q0f16"), output)
    assert not output.exists()


@pytest.mark.usefixtures("no_code")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_the_checkpoints(tmp_path: Path, output: Path, dtype: str) -> None:
    folder = write_random_checkpoint(tmp_path / "typed", "text", seed=3, dtype=dtype)
    compile_job(plan_job(folder, quantization="q0f32"), output)
    names = [t["name"] for t in json.loads((output / layout.WEIGHTS_INDEX).read_text())["tensors"]]
    arrays = dict(zip(names, map_weights(output), strict=True))
    expected = load_tensors(folder)
    head = expected["lm_head.weight"].numpy()
    np.testing.assert_array_equal(from_panels(arrays["decoder.lm_head.weight"], len(head)), head)
    stacked = torch.cat([expected[Q_PROJ.replace("q_proj", f"{part}_proj")] for part in "qkv"])
    found = from_panels(arrays["decoder.layers.0.attention.qkv.weight"], len(stacked))
    np.testing.assert_array_equal(found, stacked.numpy())


@pytest.mark.usefixtures("no_code")
def test_four_bit_weights_are_those_of_mlc(checkpoint: Path, output: Path) -> None:
    compile_job(plan_job(checkpoint, quantization="q4f16_1"), output)
    names = [t["name"] for t in json.loads((output / layout.WEIGHTS_INDEX).read_text())["tensors"]]
    arrays = dict(zip(names, map_weights(output), strict=True))
    name = "decoder.layers.0.down"
    panels = (arrays[f"{name}.q_weight"], arrays[f"{name}.q_scale"])
    words, scales = (from_panels(panel, 128) for panel in panels)
    found = read_rows(words, scales.astype(np.float16), Q4MLC, 256)
    expected = load_tensors(checkpoint)["model.layers.0.mlp.down_proj.weight"].numpy()
    np.testing.assert_array_equal(found, to_q4(expected))


# --- tokenizers, targets, toolchains ------------------------------------------------------------


def test_a_tokenizer_with_too_many_pieces(tmp_path: Path, output: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "few", "text", seed=0, vocab_size=383)
    refuse(folder, output, TokenizerError, r"does not belong.*expected 383 pieces.*found 384")


def test_vocabulary_larger_than_the_tokenizer(tmp_path: Path, output: Path, no_code: None) -> None:
    folder = write_random_checkpoint(tmp_path / "many", "text", seed=0, vocab_size=400)
    compile_job(plan_job(folder, quantization="q0f32"), output)
    assert read_settings(output).vocabulary == 400


def test_a_tokenizer_with_far_too_few_pieces(tmp_path: Path, output: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "many", "text", seed=0, vocab_size=2000)
    refuse(folder, output, TokenizerError, r"does not belong.*expected 2000 pieces.*found 384")


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_damaged_tokenizer(checkpoint: Path, output: Path, content: bytes | None) -> None:
    path = checkpoint / "tokenizer.model"
    path.write_bytes(path.read_bytes()[:1000] if content is None else content)
    refuse(checkpoint, output, TokenizerError, r"tokenizer\.model")


def test_no_tokenizer(checkpoint: Path, output: Path) -> None:
    (checkpoint / "tokenizer.model").unlink()
    refuse(checkpoint, output, CheckpointError, "has no tokenizer")


def test_an_unknown_target(checkpoint: Path, output: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown target: expected host.*found 'pdp11'"):
        compile_job(plan_job(checkpoint, target="pdp11"), output)


def test_no_linker(checkpoint: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(output))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(find, "package_folder", mock.Mock(side_effect=ModuleNotFoundError))
    refuse(checkpoint, output, TargetError, r"no C compiler.*cc, gcc, clang.*pip install ziglang")


def test_another_tvm(checkpoint: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "package_versions", lambda: {"apache-tvm": "0.26.0"})
    refuse(checkpoint, output, TargetError, r"expected 0\.27.*found 0\.26\.0.*pip install")


@pytest.mark.parametrize("there", ["a file", "a folder"])
def test_output_folder_with_other_files_is_kept(
    checkpoint: Path, tmp_path: Path, there: str
) -> None:
    output = tmp_path / "mine"
    if there == "a folder":
        output.mkdir()
        (output / "thesis.txt").write_text("mine")
    else:
        output.write_text("mine")
    with pytest.raises(UsageError, match="is in the way"):
        compile_job(plan_job(checkpoint), output)
    assert (output / "thesis.txt" if output.is_dir() else output).read_text() == "mine"


# --- what is written ----------------------------------------------------------------------------


@pytest.mark.usefixtures("no_code")
def test_a_tied_head_does_not_count_past_the_end(tmp_path: Path, output: Path) -> None:
    folder = write_random_checkpoint(
        tmp_path / "tied", "text", seed=0, num_hidden_layers=1, tie_word_embeddings=True
    )
    counts: list[tuple[int, int]] = []

    def progress(step: str, done: int, total: int) -> None:
        if step == "weights":
            counts.append((done, total))

    compile_job(plan_job(folder, quantization="q0f32"), output, progress=progress)
    assert counts[-1][0] == counts[-1][1]


@pytest.mark.parametrize("target", ["host", "portable"])
@pytest.mark.parametrize(
    ("embedding", "head", "dtypes"),
    [
        (None, None, {"lm_head.q_weight": "uint8"}),
        ("q8a8", "q8a8", {"lm_head.q_weight": "uint8"}),
        ("q0f16", "q0f16", {"lm_head.weight": "float16"}),
        ("q4a8", None, {"embed_tokens.q_weight": "uint32", "lm_head.q_weight": "uint8"}),
        ("q0f16", None, {"embed_tokens.weight": "float16", "lm_head.q_weight": "uint8"}),
    ],
)
def test_a_tied_table_is_stored_once_if_table_and_head_have_one_scheme(
    tmp_path: Path,
    output: Path,
    target: str,
    embedding: str | None,
    head: str | None,
    dtypes: dict[str, str],
) -> None:
    folder = write_random_checkpoint(
        tmp_path / "tied", "text", seed=0, num_hidden_layers=1, tie_word_embeddings=True
    )
    quantization = plan_quantization("q4a8", embedding=embedding, head=head)
    pack_job(plan_job(folder, target=target, quantization=quantization), output)
    index = read_weights_index(output)
    if target == "portable":  # which stores the head's words and bytes as it stores a table's
        words = {"q8a8": "int8", "q0f16": "float16"}[head or "q8a8"]
        dtypes = {name: words if "lm_head" in name else of for name, of in dtypes.items()}
    assert dtypes == {
        entry.name.removeprefix("decoder."): entry.dtype
        for entry in index.tensors
        if entry.name.endswith("weight") and ("embed" in entry.name or "lm_head" in entry.name)
    }
    assert (output / "weights" / "embedding.bin").exists() == (len(dtypes) == 2)


def test_compiling_again_gives_the_same_artifact(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    """Bit by bit, so that anyone can check where an artifact comes from."""
    first = artifact_cache.artifact("text")
    second = tmp_path / "again"
    seen: list[tuple[str, int, int]] = []
    compile_job(
        plan_job(artifact_cache.checkpoint("text"), quantization="q0f32"),
        second,
        progress=lambda *report: seen.append(report),
    )
    left, right = verify_artifact(first), verify_artifact(second)
    pairs = zip(left.files, right.files, strict=True)
    assert [one.path for one, other in pairs if one != other] == []
    assert left.digest == right.digest
    check_progress(seen)


def check_progress(seen: list[tuple[str, int, int]]) -> None:
    """It goes forwards, step by step, to the end of each."""
    steps = list(dict.fromkeys(step for step, _, _ in seen))
    names = ["graph", "kernels", "fuse", "schedule", "lower", "code", "link"]
    assert steps == [*(f"compile: {name}" for name in names), "weights", "manifest"]
    for prefix in ("compile", "weights", "manifest"):
        counts = [(done, total) for step, done, total in seen if step.startswith(prefix)]
        assert counts == sorted(counts)
        assert len({total for _, total in counts}) == 1
        assert counts[-1][0] == counts[-1][1]


def test_the_artifact_says_what_it_was_made_from(artifact_cache: ArtifactCache) -> None:
    manifest = verify_artifact(artifact_cache.artifact("ldpnet"))
    assert manifest.model["name"] == "ldpnet"
    assert manifest.model["vision"]["projector"] == "ldpnet"
    tensors = load_tensors(artifact_cache.checkpoint("ldpnet"))
    clip = load_tensors(artifact_cache.checkpoint("ldpnet").with_name("ldpnet-clip"))
    # Of the tower's three layers the last is unused, and so is its last normalization.
    used = {
        name: tensor
        for name, tensor in clip.items()
        if name.startswith("vision_model.")
        and not name.startswith(("vision_model.encoder.layers.2.", "vision_model.post_layernorm"))
    }
    parameters = sum(tensor.numel() for tensor in [*tensors.values(), *used.values()])
    assert manifest.model["parameters"] == parameters
    toolchain_entry = manifest.provenance["toolchain"]
    assert {"apache-tvm", "apache-tvm-ffi", "llvm", "linker", "numpy"} <= toolchain_entry.keys()
    job = plan_job(artifact_cache.checkpoint("ldpnet"), quantization="q0f32")
    assert manifest.provenance["checkpoint"] == job.checkpoint_digest()


def test_an_existing_artifact_is_replaced(
    artifact_cache: ArtifactCache, tmp_path: Path, no_code: None
) -> None:
    place = Path(shutil.copytree(artifact_cache.artifact("ldpnet"), tmp_path / "artifact"))
    compile_job(plan_job(artifact_cache.checkpoint("text"), quantization="q0f32"), place)
    assert verify_artifact(place).model["name"] == "text"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
