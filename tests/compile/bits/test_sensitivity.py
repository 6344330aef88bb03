"""What rounding a unit costs: against torch, resumed, and scaled to other schemes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mvlm.compile.bits import sensitivity
from mvlm.compile.bits.find import find_or_measure, with_plan
from mvlm.compile.bits.losses import LossFolder
from mvlm.compile.bits.output_errors import rounded
from mvlm.compile.bits.samples import POSITIONS, planning_samples
from mvlm.compile.bits.sensitivity import Sensitivity
from mvlm.compile.calibration_data.data import DrawSettings
from mvlm.compile.calibration_data.request import CalibrationRequest
from mvlm.compile.calibration_data.samples import CalibrationData, Sample, SampleImage
from mvlm.compile.job import CompileJob, plan_job
from mvlm.models.quantization import (
    PLAN_SCHEMES,
    UNITS,
    BitPlan,
    LayerPlan,
    find_scheme,
    plan_quantization,
)
from mvlm.runtime.errors import CheckpointError, TargetError
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID
from tests.artifacts import ArtifactCache
from tests.once import make_once
from tests.reference import Reference, write_random_checkpoint

SMALL = CalibrationRequest(draw=DrawSettings(tokens=2048, length=128))
# The checkpoint's tensors that each unit is made of, behind "model.layers.N.".
TENSORS = {
    "attention": [f"self_attn.{each}_proj.weight" for each in "qkvo"],
    "gate_up": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
    "down": ["mlp.down_proj.weight"],
}


def _plan(checkpoint: Path, bits: float = 3.75) -> CompileJob:
    return plan_job(checkpoint, quantization=plan_quantization(bits=bits), calibration=SMALL)


@pytest.fixture(scope="module")
def measured(artifact_cache: ArtifactCache, shared_folder: Path) -> tuple[CompileJob, Path]:
    """A job, and the folder of its layers' losses."""
    job = _plan(artifact_cache.checkpoint("text"))

    def measure(folder: Path) -> None:
        folder.mkdir()
        Sensitivity(job, LossFolder(folder, "key")).run()

    return job, make_once(shared_folder / "losses-text", measure)


def _exact(job: CompileJob, reference: Reference) -> list[torch.Tensor]:
    """Return the log-probabilities of next tokens behind each sample's positions."""
    samples = planning_samples(job.planning_data, 0)
    logits = [torch.from_numpy(reference.prefill_logits(each.ids)) for each in samples]
    return [each.double().log_softmax(-1) for each in logits]


@pytest.mark.parametrize("unit", UNITS)
def test_losses_are_those_of_the_model_with_one_unit_rounded(
    measured: tuple[CompileJob, Path], unit: str
) -> None:
    job, folder = measured
    reference = Reference(job.checkpoint)
    exact = _exact(job, reference)
    scheme = find_scheme(sensitivity.MEASURED)
    for layer in (0, 1):
        reference = Reference(job.checkpoint)
        state = dict(reference.language.named_parameters())
        for name in TENSORS[unit]:
            weight = state[f"model.layers.{layer}.{name}"].data
            weight.copy_(torch.from_numpy(rounded(weight.numpy(), scheme)))
        found = _exact(job, reference)
        pairs = zip(exact, found, strict=True)
        sums = [float((e.exp() * (e - f)).sum()) for e, f in pairs]
        losses = LossFolder(folder, "key").read(layer)
        assert losses is not None
        expected = sum(sums) / sum(len(each) for each in exact)
        # Differences of logarithms in float32, in another order of sums.
        assert losses[unit][sensitivity.MEASURED] == pytest.approx(expected, rel=0.02, abs=1e-7)


def test_losses_of_other_schemes_are_near_those_that_are_measured(
    measured: tuple[CompileJob, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The assumption: a unit's loss goes with the squared error of its outputs."""
    job, folder = measured
    monkeypatch.setattr(sensitivity, "MEASURED", "q4a8")
    found = Sensitivity(job, LossFolder(tmp_path, "key")).run()
    ratios = []
    for layer, losses in enumerate(found):
        scaled = LossFolder(folder, "key").read(layer)
        assert scaled is not None
        for unit in UNITS:
            assert scaled[unit]["q3a8"] > scaled[unit]["q4a8"] > scaled[unit]["q8a8"] > 0
            ratios.append(scaled[unit]["q4a8"] / losses[unit]["q4a8"])
    assert len(ratios) == 6
    # The schemes' own losses differ by a factor of five, and by two hundred.
    assert min(ratios) > 0.6 and max(ratios) < 1.6


def test_measuring_goes_on_behind_finished_layers_and_is_deterministic(
    measured: tuple[CompileJob, Path], tmp_path: Path
) -> None:
    job, folder = measured
    first, second = (LossFolder(folder, "key").read(layer) for layer in (0, 1))
    assert first is not None and second is not None
    # Marked, to see that it is not measured again.
    marked = {unit: dict.fromkeys(PLAN_SCHEMES, 7.0) for unit in UNITS}
    LossFolder(tmp_path, "key").write(0, marked)
    LossFolder(tmp_path, "another key").write(1, first)
    steps = []
    again = LossFolder(tmp_path, "key")
    losses = Sensitivity(job, again, lambda step, done, total: steps.append((done, total))).run()
    assert losses == (marked, second) == again.read_all(2)
    assert steps[-1][0] == steps[-1][1] and steps == sorted(steps)


def test_what_is_not_ours_is_measured_again(tmp_path: Path) -> None:
    output = LossFolder(tmp_path, "key")
    fine = {unit: dict.fromkeys(PLAN_SCHEMES, 1.0) for unit in UNITS}
    output.write(0, fine)
    assert output.read(0) == fine and output.read_all(2) is None
    for broken in ("", "[]", "{}", '{"key": "key"}', '{"key": "key", "losses": {"down": 1}}'):
        (tmp_path / "layer-00.json").write_text(broken)
        assert output.read(0) is None
    output.write(0, {unit: dict.fromkeys(PLAN_SCHEMES, float("nan")) for unit in UNITS})
    assert output.read(0) is None


def test_samples_are_short_and_many() -> None:
    image = SampleImage(Path("x"), "0")
    text = Sample(tuple(range(512)))
    scene = Sample((1, IMAGE_TOKEN_ID, *range(500)), (image,))
    samples = planning_samples(CalibrationData((text, scene) * 8, ()), 144)
    counts = [each.positions(144) for each in samples]
    assert counts[:2] == [128, 128 + 144] and all(each.images for each in samples[1::2])
    assert POSITIONS <= sum(counts) < POSITIONS + 272
    few = planning_samples(CalibrationData((text,), ()), 144)
    assert [each.positions(144) for each in few] == [128]


def test_plans_are_found_without_measuring_again(
    artifact_cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses serve all bits; at both ends of the range there is nothing to choose."""
    monkeypatch.setenv("MVLM_CACHE", str(tmp_path))
    checkpoint = artifact_cache.checkpoint("text")
    job, runs = _plan(checkpoint), []

    def run(self: Sensitivity) -> object:
        runs.append(self)
        for layer in range(2):
            value = {"q3a8": 1.0 + layer, "q4a8": 0.2, "q8a8": 0.0}
            self._output.write(layer, dict.fromkeys(UNITS, value))
        return self._output.read_all(2)

    monkeypatch.setattr(Sensitivity, "run", run)
    ends = [with_plan(_plan(checkpoint, bits)).quantization for bits in (3.25, 8.5)]
    assert runs == []
    for quantization, name in zip(ends, ("q3a8", "q8a8"), strict=True):
        assert quantization.plan == BitPlan((LayerPlan(name, name, name),) * 2)
        assert quantization.bits is None and quantization.name == name
    planned = with_plan(job).quantization
    # Half of the weights get 4 bits: those of the layer that loses more without.
    assert planned.plan is not None and len(runs) == 1
    assert planned.plan.layers[1] == LayerPlan("q4a8", "q4a8", "q4a8")
    assert planned.plan.mean_bits(job.config.language.unit_weights()) == 3.75
    with_plan(_plan(checkpoint, 4.0))
    assert len(find_or_measure(_plan(checkpoint, 5.0))) == 2 and len(runs) == 1
    plain = plan_job(checkpoint)
    assert with_plan(plain) is plain


def test_keys(artifact_cache: ArtifactCache) -> None:
    """Bits and data are in a job's key; the measurement's key has the data alone."""
    checkpoint = artifact_cache.checkpoint("text")
    job, other = _plan(checkpoint), _plan(checkpoint, 4.0)
    data = replace(job, calibration=replace(SMALL, draw=replace(SMALL.draw, seed=1)))
    default = replace(job, calibration=None)
    jobs = (job, other, data, default)
    assert len({each.key() for each in jobs}) == len({each.weights_key() for each in jobs}) == 4
    assert job.sensitivity_key() == other.sensitivity_key() != data.sensitivity_key()
    assert default.planning_data.positions > 8192
    assert default.sensitivity_key() != job.sensitivity_key()
    assert job.key(data="0" * 64) != job.key()


def test_too_little_memory(
    artifact_cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MVLM_CACHE", str(tmp_path))
    monkeypatch.setattr("mvlm.compile.memory.available_memory_bytes", lambda: 1_000_000)
    with pytest.raises(TargetError, match=r"too little memory to measure the layers of this model"):
        with_plan(_plan(artifact_cache.checkpoint("text")))


def test_models_that_compute_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = write_random_checkpoint(tmp_path / "model", "text", seed=0)
    job = _plan(checkpoint)
    monkeypatch.setattr(sensitivity, "rounded", lambda matrix, scheme: np.full_like(matrix, np.nan))
    with pytest.raises(CheckpointError, match="losses cannot be measured"):
        Sensitivity(job, LossFolder(tmp_path, "key")).run()
