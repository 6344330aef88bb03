"""NaN and infinity in weights: refused by the tensor's name on every road that reads weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
import tvm
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from tvm.contrib import tvmjs

from mvlm.compile.driver import pack_job
from mvlm.compile.job import plan_job
from mvlm.models.checkpoint import open_checkpoint
from mvlm.models.config.read import read_config
from mvlm.models.interchange import Conversion, convert
from mvlm.models.interchange.onnx_constants import check_constants
from mvlm.models.onnx_vision import import_vision
from mvlm.models.weight_files.tensor_file import check_finite
from mvlm.runtime.errors import CheckpointError
from mvlm.schedules.cpu.panels import PANELS
from tests.artifacts import ArtifactCache

DOWN = "model.layers.1.mlp.down_proj.weight"
PROJECTOR = "model.mm_projector.weight"
VALUES = [float("nan"), float("inf"), float("-inf")]


def spoiled(checkpoint: Path, copies: Path, name: str, value: float) -> Path:
    """Copy a checkpoint with its tower and set one weight of it."""
    copies.mkdir()
    for folder in checkpoint.parent.glob(f"{checkpoint.name}*"):
        if folder.name in (checkpoint.name, f"{checkpoint.name}-clip"):
            shutil.copytree(folder, copies / folder.name)
    path = copies / checkpoint.name / "model.safetensors"
    tensors = load_file(path)
    tensors[name].view(-1)[7] = value
    save_file(tensors, path, metadata={"format": "pt"})
    return copies / checkpoint.name


# --- the check itself ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", VALUES)
def test_check_finite_refuses_nan_and_infinity(dtype: str, value: float) -> None:
    tensor = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    assert check_finite("w", tensor) is tensor
    tensor[1, 1] = value
    with pytest.raises(CheckpointError, match=r"tensor w holds NaN.*found 1 of 6.*allow-nonfinite"):
        check_finite("w", tensor)
    allowed = check_finite("w", tensor, allow=True)
    assert allowed[1, 1] == {"nan": 0, "inf": 65504, "-inf": -65504}[str(value)]
    assert allowed[0, 2] == 2


def test_huge_values_are_finite() -> None:
    tensor = np.full(1000, np.finfo(np.float32).max)
    assert check_finite("w", tensor) is tensor
    assert check_finite("w", np.zeros((0, 4), np.float32)).shape == (0, 4)


# --- the roads ----------------------------------------------------------------------------------

ROADS = {
    "mlc q4f16_1": ("text", DOWN, Conversion("mlc", "q4f16_1")),
    "mlc q0f32": ("text", DOWN, Conversion("mlc", "q0f32")),
    "mlc q0bf16": ("text", "model.norm.weight", Conversion("mlc", "q0bf16")),
    "gguf f32": ("text", DOWN, Conversion("gguf", "f32")),
    "gguf q4_0": ("text", DOWN, Conversion("gguf", "q4_0")),
    "onnx": ("linear", PROJECTOR, Conversion("onnx")),
}


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("value", VALUES[:2])
def test_converting_refuses_nonfinite_weights(
    artifact_cache: ArtifactCache, tmp_path: Path, road: str, value: float
) -> None:
    family, name, conversion = ROADS[road]
    checkpoint = spoiled(artifact_cache.checkpoint(family), tmp_path / "copy", name, value)
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=rf"{name} holds NaN.*found 1 of"):
        convert(checkpoint, tmp_path / "out", conversion)


def test_converting_to_mlc_replaces_if_asked_to(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    checkpoint = spoiled(artifact_cache.checkpoint("text"), tmp_path / "copy", DOWN, float("inf"))
    (tmp_path / "out").mkdir()
    convert(checkpoint, tmp_path / "out", Conversion("mlc", "q0f32", allow_nonfinite=True))
    arrays, _ = tvmjs.load_tensor_cache(str(tmp_path / "out"), tvm.cpu())
    assert arrays[DOWN].numpy().reshape(-1)[7] == 65504


def test_converting_to_gguf_replaces_if_asked_to(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    checkpoint = spoiled(artifact_cache.checkpoint("text"), tmp_path / "copy", DOWN, float("nan"))
    (tmp_path / "out").mkdir()
    convert(checkpoint, tmp_path / "out", Conversion("gguf", "f32", allow_nonfinite=True))
    tensors = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "out/model-f32.gguf").tensors}
    assert tensors["blk.1.ffn_down.weight"].reshape(-1)[7] == 0


@pytest.mark.parametrize("value", VALUES[:2])
def test_packing_for_jobs_refuses_nonfinite_weights(
    artifact_cache: ArtifactCache, tmp_path: Path, value: float
) -> None:
    checkpoint = spoiled(artifact_cache.checkpoint("text"), tmp_path / "copy", DOWN, value)
    job = plan_job(checkpoint, quantization="q0f32", logs=())
    with pytest.raises(CheckpointError, match=rf"{DOWN} holds NaN"):
        pack_job(job, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("value", VALUES[:2])
def test_an_adapter_with_nonfinite_weights_is_refused(
    artifact_cache: ArtifactCache, tmp_path: Path, value: float
) -> None:
    """The base is finite, what the adapter makes of it is not."""
    checkpoint, rank = artifact_cache.checkpoint("text"), 2
    rows, columns = open_checkpoint(checkpoint).shape(DOWN)
    module = f"base_model.model.{DOWN.removesuffix('.weight')}"
    pair = {
        f"{module}.lora_A.weight": torch.ones(rank, columns),
        f"{module}.lora_B.weight": torch.ones(rows, rank),
    }
    pair[f"{module}.lora_A.weight"][0, 0] = value
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": ["down_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file(pair, tmp_path / "adapter_model.safetensors")
    merged = open_checkpoint(checkpoint, adapter=tmp_path)
    with pytest.raises(CheckpointError, match=rf"{DOWN} holds NaN"):
        merged.read(DOWN)


# --- values that the stored type cannot hold ----------------------------------------------------

OVERFLOWS = {
    "gguf f16": ("text", DOWN, Conversion("gguf", "f16"), 1e5),
    "gguf bf16": ("text", DOWN, Conversion("gguf", "bf16"), 3.4e38),
    "gguf q8_0": ("text", DOWN, Conversion("gguf", "q8_0"), 1e8),
    "gguf q4_0": ("text", DOWN, Conversion("gguf", "q4_0"), 1e8),
    "mlc q0f16": ("text", DOWN, Conversion("mlc", "q0f16"), 1e5),
    "mlc q0bf16": ("text", DOWN, Conversion("mlc", "q0bf16"), 3.4e38),
    "onnx f16": ("linear", PROJECTOR, Conversion("onnx", "f16"), 1e5),
}


@pytest.mark.parametrize("road", OVERFLOWS)
def test_merged_weights_that_overflow_are_refused(
    artifact_cache: ArtifactCache, tmp_path: Path, road: str
) -> None:
    family, name, conversion, value = OVERFLOWS[road]
    checkpoint = spoiled(artifact_cache.checkpoint(family), tmp_path / "copy", name, value)
    (tmp_path / "out").mkdir()
    stem = name.removesuffix(".weight")
    with pytest.raises(CheckpointError, match=rf"{stem}.*(do not fit into|holds NaN or inf)"):
        convert(checkpoint, tmp_path / "out", conversion)


# --- graphs that are imported -------------------------------------------------------------------


def projector_graph(checkpoint: Path, path: Path, *, spoil: str, value: float) -> Path:
    """A projector by hand: its weight an initializer, its bias a constant, then a bound."""
    config = read_config(checkpoint)
    assert config.vision is not None and config.projector is not None
    patches, width = config.num_vision_tokens, config.projector.out_features
    channels = config.vision.hidden_size
    arrays = {
        "weight": np.ones((channels, width), np.float32),
        "bias": np.ones(width, np.float32),
        "bound": np.array(3e38, np.float32),
    }
    arrays[spoil].reshape(-1)[0] = value
    constant = helper.make_node(
        "Constant", [], ["bias"], value=numpy_helper.from_array(arrays["bias"], "")
    )
    nodes = [
        constant,
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Min", ["sum", "bound"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "projector",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, patches, channels))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, patches, width))],
        [numpy_helper.from_array(arrays[name], name) for name in ("weight", "bound")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_nonfinite_constants_of_an_onnx_graph(
    artifact_cache: ArtifactCache, tmp_path: Path, name: str, value: float
) -> None:
    checkpoint = artifact_cache.checkpoint("linear")
    graph = projector_graph(checkpoint, tmp_path / "p.onnx", spoil=name, value=value)
    config = read_config(checkpoint)
    with pytest.raises(CheckpointError, match=rf"tensor {name} of .*p\.onnx holds NaN"):
        import_vision(graph, config, PANELS)
    layer = import_vision(graph, config, PANELS, allow_nonfinite=True).layer
    packed = [value for _, value in layer.pack(lambda name: np.zeros(0))]
    assert packed
    assert all(np.isfinite(array).all() for array in packed)


@pytest.mark.parametrize("value", VALUES)
def test_nonfinite_attributes_and_inner_graphs_of_onnx(value: float) -> None:
    """The importer knows no lists of numbers yet; the check does not wait for it."""
    constant = helper.make_node("Constant", [], ["numbers"], value_floats=[1.0, value])
    inner = helper.make_graph([constant], "inner", [], [])
    branch = helper.make_node("If", ["which"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([branch], "outer", [], [])
    with pytest.raises(CheckpointError, match=r"tensor numbers of f\.onnx.*found 1 of 2"):
        check_constants(Path("f.onnx"), graph, allow_nonfinite=False)
    check_constants(Path("f.onnx"), graph, allow_nonfinite=True)
    found = graph.node[0].attribute[0].g.node[0].attribute[0].floats
    assert list(found) == [1.0, {"nan": 0, "inf": 65504, "-inf": -65504}[str(value)]]


def test_an_onnx_constant_that_claims_another_size() -> None:
    tensor = TensorProto(name="w", dims=[1 << 40], data_type=TensorProto.FLOAT, raw_data=b"1234")
    graph = helper.make_graph([], "g", [], [], [tensor])
    with pytest.raises(CheckpointError, match="the constant w is damaged"):
        check_constants(Path("f.onnx"), graph, allow_nonfinite=False)


def test_an_infinite_onnx_clip_bound_is_accepted(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    checkpoint = artifact_cache.checkpoint("linear")
    path, config = tmp_path / "p.onnx", read_config(checkpoint)
    graph = projector_graph(checkpoint, path, spoil="bound", value=float("inf"))
    assert import_vision(graph, config, PANELS).role == "projector"
    graph = projector_graph(checkpoint, path, spoil="bound", value=float("nan"))
    with pytest.raises(CheckpointError, match="tensor bound of"):
        import_vision(graph, config, PANELS)


def test_the_onnx_graph_of_a_job_is_checked(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    checkpoint = artifact_cache.checkpoint("linear")
    graph = projector_graph(checkpoint, tmp_path / "p.onnx", spoil="weight", value=float("nan"))
    with pytest.raises(CheckpointError, match="tensor weight of"):
        plan_job(checkpoint, vision_onnx=graph, logs=()).build_model()
    job = plan_job(checkpoint, vision_onnx=graph, allow_nonfinite=True, logs=())
    assert job.build_model() is not None
