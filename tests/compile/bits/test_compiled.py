"""Artifacts whose layers differ in their schemes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mvlm.cli.shared.bit_plan import show_layers
from mvlm.compile.bits import find
from mvlm.compile.bits.output_errors import rounded
from mvlm.compile.bits.plan_file import PlanError
from mvlm.compile.compile_target import prepare_target
from mvlm.compile.driver import compile_job, pack_job
from mvlm.compile.job import plan_job
from mvlm.compile.packing import PACKED_PLAN, PackedWeights
from mvlm.compile.tuning.task import extract_tasks
from mvlm.models.layers import Linear, packed_layers
from mvlm.models.ops.signatures import QuantizedLinearSignature
from mvlm.models.quantization import (
    PLAN_SCHEMES,
    UNITS,
    BitPlan,
    LayerPlan,
    find_scheme,
    plan_quantization,
)
from mvlm.runtime.artifact import read_manifest, verify_artifact
from mvlm.runtime.artifact.kernels import read_kernel_traffic, total_traffic
from mvlm.runtime.errors import CheckpointError, UsageError
from mvlm.runtime.model import Model
from mvlm.runtime.targets import find_description
from tests.artifacts import ArtifactCache
from tests.cli.command_line import mvlm
from tests.forward import logits_of
from tests.no_code import generate_no_code
from tests.once import make_once
from tests.reference import Reference

PLAN = BitPlan((LayerPlan("q3a8", "q4a8", "q8a8"), LayerPlan("q4a8", "q8a8", "q3a8")))
IDS = [1, *range(40, 90)]
UNIT_TENSORS = {
    "attention": [f"self_attn.{each}_proj" for each in "qkvo"],
    "gate_up": ["mlp.gate_proj", "mlp.up_proj"],
    "down": ["mlp.down_proj"],
}


@pytest.fixture(scope="module")
def artifact(artifact_cache: ArtifactCache, shared_folder: Path) -> Path:
    """A model of two layers with a plan; all else is float32."""
    quantization = plan_quantization(
        plan=PLAN, embedding="q0f32", head="q0f32", vision="q0f32", cache="float32"
    )
    job = plan_job(artifact_cache.checkpoint("text"), quantization=quantization)
    return make_once(shared_folder / "artifact-plan", lambda folder: compile_job(job, folder))


def test_the_artifact_computes_with_each_units_own_weights(
    artifact: Path, artifact_cache: ArtifactCache
) -> None:
    """Against torch with the weights that the schemes leave: the activations alone differ."""
    reference = Reference(artifact_cache.checkpoint("text"))
    exact = reference.prefill_logits(IDS)
    state = dict(reference.language.named_parameters())
    for index, layer in enumerate(PLAN.layers):
        for unit, scheme in layer.items():
            for name in UNIT_TENSORS[unit]:
                weight = state[f"model.layers.{index}.{name}.weight"].data
                weight.copy_(torch.from_numpy(rounded(weight.numpy(), find_scheme(scheme))))
    expected = reference.prefill_logits(IDS)
    found = logits_of(Model(artifact), IDS)
    by_activations, by_weights = (np.square(expected - each).mean() for each in (found, exact))
    assert by_activations < 0.1 * by_weights


def test_manifest_and_inspect_show_the_plan(artifact: Path) -> None:
    manifest = verify_artifact(artifact)
    assert manifest.to_json()["layers"] == PLAN.to_json()["layers"]
    assert manifest.quantization["language"] == "q3a8+q4a8+q8a8"
    assert 3.25 < float(manifest.quantization["bits"]) < 8.5
    shown = mvlm("inspect", artifact).stdout.splitlines()
    assert [line.split() for line in shown[-3:]] == [
        ["layer", *UNITS],
        ["0", "q3a8", "q4a8", "q8a8"],
        ["1", "q4a8", "q8a8", "q3a8"],
    ]
    assert mvlm("inspect", artifact, "--json").json["layers"] == PLAN.to_json()["layers"]


def test_bytes_of_a_token_are_those_of_each_layers_format(
    artifact: Path, artifact_cache: ArtifactCache
) -> None:
    """The layers' matrices are read once, each in its own format, with its rows' scales."""
    exact = artifact_cache.artifact("text")
    read, plain = (
        total_traffic(read_kernel_traffic(place)["decode"].values()).weight_bytes
        for place in (artifact, exact)
    )
    model = plan_job(
        artifact_cache.checkpoint("text"), quantization=plan_quantization(plan=PLAN)
    ).build_model()
    saved = 0.0
    for _, layer in packed_layers(model.decoder.layers):
        if isinstance(layer, Linear):
            stored = layer.linear_format.scheme.weights
            saved += layer.width * layer.features * (32 - stored.bits_per_weight) / 8
            # Its scale in float32, and a sixteenth of 16 levels.
            saved -= 5 * layer.features * stored.has_tables
    assert saved > 0.7 * plain
    assert read == plain - saved


def test_tuning_has_tasks_of_all_formats(artifact_cache: ArtifactCache) -> None:
    job = plan_job(
        artifact_cache.checkpoint("text"), quantization=plan_quantization("q4a8", ffn="q3a8")
    )
    tasks = extract_tasks(job, prepare_target(find_description("host")))
    formats = {
        task.signature.weights
        for task in tasks
        if isinstance(task.signature, QuantizedLinearSignature)
    }
    assert formats == {"q3nl", "q4nl", "q8"}


def test_packed_weights_carry_the_plan(
    artifact_cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers are measured where weights are packed; artifacts of all devices take that plan."""
    losses = {"q3a8": 2.0, "q4a8": 1.0, "q8a8": 0.0}
    measured = tuple(dict.fromkeys(UNITS, losses) for _ in range(2))
    monkeypatch.setattr(find, "find_or_measure", lambda *_: measured)
    generate_no_code(monkeypatch)
    job = plan_job(
        artifact_cache.checkpoint("text"),
        quantization=plan_quantization(bits=4.5, embedding="q4a8"),
    )
    pack_job(job, tmp_path / "packed")
    compile_job(job, tmp_path / "whole")
    monkeypatch.setattr(find, "find_or_measure", None)
    packed = PackedWeights(tmp_path / "packed", "0" * 64)
    compile_job(job, tmp_path / "over", weights=packed)
    manifests = [read_manifest(tmp_path / name) for name in ("whole", "over")]
    assert manifests[0].layers == manifests[1].layers != ()
    assert 4.3 < float(manifests[0].quantization["bits"]) <= 4.5
    # Without a plan, nothing but the plan is missing.
    (tmp_path / "packed" / PACKED_PLAN).unlink()
    with pytest.raises(PlanError, match=r"cannot read .*plan\.json"):
        compile_job(job, tmp_path / "over", weights=packed)
    uniform = plan_job(job.checkpoint, quantization="q4a8")
    pack_job(uniform, tmp_path / "uniform")
    assert not (tmp_path / "uniform" / PACKED_PLAN).exists()


def test_bad_checkpoints_are_found_before_layers_are_measured(
    artifact_cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "find_or_measure", None)
    folder = shutil.copytree(artifact_cache.checkpoint("text"), tmp_path / "model")
    for file in folder.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-100])
    job = plan_job(folder, quantization=plan_quantization(bits=4.5))
    with pytest.raises(CheckpointError):
        compile_job(job, tmp_path / "artifact")


def test_plans_of_another_model(artifact_cache: ArtifactCache) -> None:
    plan = BitPlan(PLAN.layers * 2)
    with pytest.raises(UsageError, match="expected schemes for its 2 layers, found 4 layers"):
        plan_job(artifact_cache.checkpoint("text"), quantization=plan_quantization(plan=plan))


def test_no_plan_is_measured_with_a_graph_from_onnx(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="expected --bits or --vision-onnx"):
        plan_job(
            artifact_cache.checkpoint("text"),
            vision_onnx=tmp_path,
            quantization=plan_quantization(bits=4.0),
        )


def test_the_verb_measures_once_and_writes_a_plan(
    artifact_cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MVLM_CACHE", str(tmp_path / "cache"))
    checkpoint, path = artifact_cache.checkpoint("text"), tmp_path / "plan.json"
    command = ("plan", checkpoint, "--calibration-tokens", "2048", "--bits")
    document = mvlm(*command, "3.75", "--json", "-o", path).json
    assert document["output"] == str(path) and len(document["losses"]) == 2
    assert 3.25 < document["bits"] <= 3.75 and document["loss"] > 0
    assert mvlm(*command, "3.75", "--json").json["losses"] == document["losses"]
    shown = mvlm(*command, "4.5").stdout
    assert "bits a weight" in shown and "attention" in shown
    place = tmp_path / "artifact"
    made = mvlm("compile", checkpoint, "--plan", path, "-o", place, "--json").json
    assert made["quantization"]["bits"] == f"{document['bits']:.4g}"
    assert read_manifest(place).to_json()["layers"] == document["layers"]


def test_layers_are_shown_with_their_losses(capsys: pytest.CaptureFixture[str]) -> None:
    losses = {unit: dict(zip(PLAN_SCHEMES, (0.5, 0.25, 0.001), strict=True)) for unit in UNITS}
    show_layers(PLAN.to_json()["layers"], [losses, losses])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0", "q3a8", "5.00e-01", "q4a8", "2.50e-01", "q8a8", "1.00e-03"]
