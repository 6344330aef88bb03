"""A tower or a projector of one's own as ONNX, compiled into the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.models.config.read import read_config
from mvlm.models.interchange import Conversion, convert
from mvlm.models.onnx_vision import import_vision
from mvlm.runtime.errors import CheckpointError, MvlmError, UsageError
from mvlm.runtime.model import Model
from mvlm.schedules.cpu.panels import PANELS
from tests.artifacts import ArtifactCache
from tests.reference import FEATURE_TOLERANCE, Reference
from tests.reference.projectors import project


class Stage(torch.nn.Module):
    """A function of the reference as a module that torch can export."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def export(function: Callable[[Tensor], Tensor], shape: tuple[int, ...], path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Stage(function), (torch.zeros(shape),), str(path), dynamo=False, opset_version=17
        )
    return path


def pixels_of(checkpoint: Path) -> np.ndarray:
    vision = read_config(checkpoint).vision
    assert vision is not None
    shape = (1, 3, vision.image_size, vision.image_size)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def compiled(checkpoint: Path, graph: Path, folder: Path) -> Model:
    compile_job(plan_job(checkpoint, quantization="q0f32", vision_onnx=graph), folder)
    return Model(folder)


def check(model: Model, checkpoint: Path) -> None:
    """Features and embeddings are those of the checkpoint that the graph was made of."""
    reference, pixels = Reference(checkpoint), pixels_of(checkpoint)
    features = model.vision_features(pixels)
    expected = reference.projector_output(pixels)
    if features.shape == reference.vision_features(pixels).shape:
        found, wanted = model.device.download(features), reference.vision_features(pixels)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=FEATURE_TOLERANCE)
    found = model.device.download(model.project(features))
    np.testing.assert_allclose(found, expected, rtol=0, atol=FEATURE_TOLERANCE)


@pytest.mark.extended
@pytest.mark.parametrize("family", ["ldpnet", "ldpnetv2"])
def test_our_own_onnx_export_end_to_end(
    artifact_cache: ArtifactCache, tmp_path: Path, family: str
) -> None:
    checkpoint = artifact_cache.checkpoint(family)
    (tmp_path / "onnx").mkdir()
    convert(checkpoint, tmp_path / "onnx", Conversion("onnx"))
    graph = tmp_path / "onnx" / "vision.onnx"
    assert import_vision(graph, read_config(checkpoint), PANELS).role == "both"
    model = compiled(checkpoint, graph, tmp_path / "artifact")
    check(model, checkpoint)
    assert not (tmp_path / "artifact" / "weights" / "projector.bin").exists()


@pytest.mark.extended
def test_a_tower_that_torch_exports(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    checkpoint = artifact_cache.checkpoint("ldpnet")
    reference, pixels = Reference(checkpoint), pixels_of(checkpoint)
    assert reference.tower is not None
    tower = reference.tower.requires_grad_(False)
    graph = export(
        lambda x: tower(x, output_hidden_states=True).hidden_states[-2][:, 1:],
        pixels.shape,
        tmp_path / "tower.onnx",
    )
    assert import_vision(graph, read_config(checkpoint), PANELS).role == "tower"
    check(compiled(checkpoint, graph, tmp_path / "artifact"), checkpoint)


@pytest.mark.extended
def test_a_projector_that_torch_exports(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    checkpoint = artifact_cache.checkpoint("ldpnetv2")
    reference = Reference(checkpoint)
    features = reference.vision_features(pixels_of(checkpoint))
    graph = export(
        lambda x: project("ldpnetv2", reference.projector, x),
        features.shape,
        tmp_path / "projector.onnx",
    )
    assert import_vision(graph, read_config(checkpoint), PANELS).role == "projector"
    check(compiled(checkpoint, graph, tmp_path / "artifact"), checkpoint)


def test_weights_are_in_the_artifacts_weights(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    """And not in its library, which stays as small as that of any other model."""
    checkpoint = artifact_cache.checkpoint("ldpnet")
    convert(checkpoint, tmp_path, Conversion("onnx"))
    layer = import_vision(tmp_path / "vision.onnx", read_config(checkpoint), PANELS).layer
    packed = dict(layer.pack(lambda name: np.zeros(0)))
    stored = sum(value.nbytes for value in packed.values())
    written = (tmp_path / "vision.onnx.data").stat().st_size
    assert stored > 0.9 * written - 4096 * len(packed)
    assert layer.sources() == []


def test_the_key_knows_the_graph_and_its_weights(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    checkpoint = artifact_cache.checkpoint("ldpnet")
    convert(checkpoint, tmp_path, Conversion("onnx"))
    job = plan_job(checkpoint, vision_onnx=tmp_path / "vision.onnx")
    keys = {plan_job(checkpoint).key(), job.key()}
    data = tmp_path / "vision.onnx.data"
    data.write_bytes(data.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    keys.add(job.key())
    assert len(keys) == 3


# --- what does not fit --------------------------------------------------------------------------


def write_graph(path: Path, inputs: list[Any], outputs: list[Any], nodes: list[Any]) -> Path:
    def described(values: list[Any]) -> list[Any]:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in values]

    graph = helper.make_graph(nodes, "test", described(inputs), described(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def relu(source: str = "x", to: str = "y") -> Any:
    return helper.make_node("Relu", [source], [to])


BAD: dict[str, tuple[Callable[[Path], object], type[MvlmError], str]] = {
    "not there": (lambda p: None, UsageError, "is not a file"),
    "text": (lambda p: p.write_text("not ONNX"), CheckpointError, "cannot be read"),
    "empty": (lambda p: p.write_bytes(b""), CheckpointError, "wrong number of inputs"),
    "two inputs": (
        lambda p: write_graph(
            p, [("x", (1, 3, 56, 56)), ("z", (1,))], [("y", (1, 3, 56, 56))], [relu()]
        ),
        CheckpointError,
        "number of inputs: expected one, found 2",
    ),
    "images of another size": (
        lambda p: write_graph(p, [("x", (1, 3, 48, 48))], [("y", (1, 3, 48, 48))], [relu()]),
        CheckpointError,
        r"fits nowhere: expected \(1, 3, 56, 56\) or \(1, 16, 64\), found \(1, 3, 48, 48\)",
    ),
    "another output": (
        lambda p: write_graph(p, [("x", (1, 3, 56, 56))], [("y", (1, 3, 56, 56))], [relu()]),
        CheckpointError,
        r"no output that fits: expected \(1, 4, 128\) for a both or \(1, 16, 64\) for a tower",
    ),
    "an unknown operator": (
        lambda p: write_graph(
            p,
            [("x", (1, 3, 56, 56))],
            [("y", (1, 3, 56, 56))],
            [helper.make_node("Nonsense", ["x"], ["y"])],
        ),
        CheckpointError,
        "cannot be imported",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_onnx_graphs_are_refused(
    artifact_cache: ArtifactCache, tmp_path: Path, name: str
) -> None:
    write, error, message = BAD[name]
    path = tmp_path / "graph.onnx"
    write(path)
    with pytest.raises(error, match=message):
        import_vision(path, read_config(artifact_cache.checkpoint("ldpnet")), PANELS)


def test_weights_outside_the_folder_are_not_read(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    checkpoint = artifact_cache.checkpoint("ldpnet")
    (tmp_path / "inside").mkdir()
    convert(checkpoint, tmp_path / "inside", Conversion("onnx"))
    path = tmp_path / "inside" / "vision.onnx"
    (tmp_path / "inside" / "vision.onnx.data").rename(tmp_path / "outside.data")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../outside.data"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_vision(path, read_config(checkpoint), PANELS)


def test_a_text_only_model_refuses_an_onnx_vision_graph(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    convert(artifact_cache.checkpoint("ldpnet"), tmp_path, Conversion("onnx"))
    with pytest.raises(UsageError, match="text only"):
        import_vision(
            tmp_path / "vision.onnx", read_config(artifact_cache.checkpoint("text")), PANELS
        )
