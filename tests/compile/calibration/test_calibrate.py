"""Calibration of small models: what is kept, what is found again, what the artifact gets of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvlm.compile.calibration.calibrate import Calibration
from mvlm.compile.calibration.find import find_or_calibrate
from mvlm.compile.calibration.rounded_weights import (
    REPORT,
    LayerReport,
    RoundedMatrices,
    RoundedPart,
    RoundedWeights,
)
from mvlm.compile.calibration_data.data import DrawSettings
from mvlm.compile.calibration_data.request import CalibrationRequest
from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.driver import compile_job, pack_job
from mvlm.compile.job import CompileJob, plan_job
from mvlm.compile.model_library import Library, write_library
from mvlm.models.config.read import read_config
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.observed import ObservedMobileVLM
from mvlm.models.quantization import (
    Q4NL,
    SCHEMES,
    plan_quantization,
    quantize,
)
from mvlm.models.weight_layout import Matrix
from mvlm.runtime.artifact import layout, map_weights
from mvlm.runtime.artifact.weights import read_weights_index
from mvlm.runtime.errors import ArtifactError, CheckpointError
from mvlm.runtime.model import Model
from mvlm.schedules.cpu.panels import PANELS
from tests.artifacts import ArtifactCache
from tests.forward import logits_of
from tests.once import make_once
from tests.reference import write_random_checkpoint

SMALL = CalibrationRequest(draw=DrawSettings(tokens=2048, length=128))


def _plan(artifact_cache: ArtifactCache, family: str = "text", vision: str = "q0f32") -> CompileJob:
    quantization = plan_quantization(
        "q4a8", embedding="q0f32", head="q8a8", vision=vision, cache="float32"
    )
    checkpoint = artifact_cache.checkpoint(family)
    return plan_job(checkpoint, quantization=quantization, calibration=SMALL)


@pytest.fixture(scope="module")
def calibrated(
    artifact_cache: ArtifactCache, shared_folder: Path
) -> tuple[CompileJob, RoundedWeights]:
    """A job and its calibration."""
    job = _plan(artifact_cache)

    def calibrate(folder: Path) -> None:
        folder.mkdir()
        data = job.calibration_data
        assert data is not None
        Calibration(job, data, RoundedWeights(folder, job.calibration_key())).run()

    folder = make_once(shared_folder / "calibration-text", calibrate)
    return job, RoundedWeights(folder, job.calibration_key())


def _reports(weights: RoundedWeights) -> dict[str, LayerReport]:
    parts = weights.reports()
    assert parts is not None
    return {each.layer: each for reports in parts.values() for each in reports}


def test_every_matrix_is_rounded_better(
    calibrated: tuple[CompileJob, RoundedWeights],
) -> None:
    reports = _reports(calibrated[1])
    kinds = ("attention.qkv", "attention.out", "gate_up", "down")
    layers = [f"decoder.layers.{index}.{kind}" for index in range(2) for kind in kinds]
    assert list(reports) == [*layers, "decoder.lm_head"]
    assert {each.weight_format for each in reports.values()} == {"q4nl", "q8"}
    for each in reports.values():
        assert each.error < (0.9 if each.weight_format == "q4nl" else 1.01) * each.plain_error, each
        assert not each.fell_back


def test_artifacts_get_the_rounded_matrices(
    calibrated: tuple[CompileJob, RoundedWeights],
    artifact_cache: ArtifactCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The compiled model comes closer to the exact one, by an artifact as large."""
    job, weights = calibrated
    exact = Model(artifact_cache.artifact("text"))
    monkeypatch.setattr("mvlm.compile.driver.find_or_calibrate", lambda *_: weights)
    _generate_code_once(monkeypatch)
    compile_job(job, tmp_path / "calibrated")
    compile_job(replace(job, calibration=None), tmp_path / "plain")
    data, logits = job.calibration_data, []
    assert data is not None
    ids = data.samples[0].ids
    for model in (exact, Model(tmp_path / "calibrated"), Model(tmp_path / "plain")):
        logits.append(logits_of(model, ids))
    calibrated_error, plain_error = (np.square(each - logits[0]).mean() for each in logits[1:])
    assert calibrated_error < 0.8 * plain_error
    sizes = [
        sum(file.stat().st_size for file in (tmp_path / name / "weights").glob("*.bin"))
        for name in ("calibrated", "plain")
    ]
    assert sizes[0] == sizes[1]
    assert job.key() != replace(job, calibration=None).key()


def _generate_code_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `compile_job` write the same code again, where only the weights are others."""
    made: list[tuple[Library, dict[str, bytes]]] = []

    def write(model: MobileVLM, target: CompileTarget, folder: Path, **options: Any) -> Library:
        place = folder / layout.LIBRARIES
        if not made:
            library = write_library(model, target, folder, **options)
            made.append((library, {path.name: path.read_bytes() for path in place.iterdir()}))
        library, files = made[0]
        for name, data in files.items():
            (place / name).write_bytes(data)
        return library

    monkeypatch.setattr("mvlm.compile.driver.write_library", write)


def test_calibration_goes_on_behind_finished_parts_and_is_deterministic(
    calibrated: tuple[CompileJob, RoundedWeights], tmp_path: Path
) -> None:
    job, weights = calibrated
    data, folder = job.calibration_data, tmp_path / "interrupted"
    assert data is not None
    shutil.copytree(weights.folder, folder)
    first = folder / "layer-00.safetensors"
    before = first.stat().st_mtime_ns
    for name in (REPORT, "layer-01.safetensors", "head.safetensors"):
        (folder / name).unlink()
    steps = []
    again = RoundedWeights(folder, weights.key)
    Calibration(job, data, again, lambda step, done, total: steps.append((done, total))).run()
    assert first.stat().st_mtime_ns == before
    assert steps[-1][0] == steps[-1][1] and steps == sorted(steps)
    for name in ("layer-01.safetensors", "head.safetensors", REPORT):
        assert (folder / name).read_bytes() == (weights.folder / name).read_bytes()


def test_calibrations_are_found_by_their_key(
    calibrated: tuple[CompileJob, RoundedWeights],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    job, weights = calibrated
    monkeypatch.setenv("MVLM_CACHE", str(tmp_path))
    kept = tmp_path / "calibrations" / job.calibration_key()[:16]
    kept.parent.mkdir()
    shutil.copytree(weights.folder, kept)
    monkeypatch.setattr("mvlm.compile.calibration.find.Calibration", None)
    assert find_or_calibrate(job).folder == kept
    other = replace(SMALL, draw=replace(SMALL.draw, seed=1))
    keys = {
        replace(job, calibration=calibration, quantization=quantization).calibration_key()
        for calibration in (SMALL, other)
        for quantization in (job.quantization, plan_quantization("q3a8"))
    }
    assert len(keys) == 4


def test_damaged_files_are_not_taken(
    calibrated: tuple[CompileJob, RoundedWeights], tmp_path: Path
) -> None:
    _, weights = calibrated
    shutil.copytree(weights.folder, tmp_path / "damaged")
    damaged = RoundedWeights(tmp_path / "damaged", weights.key)
    matrices = RoundedMatrices(damaged)
    layer = tmp_path / "damaged" / "layer-00.safetensors"
    layer.write_bytes(layer.read_bytes()[:-100])
    assert damaged.read("layer-00") is None
    with pytest.raises(ArtifactError, match="damaged"):
        matrices.find("decoder.layers.0.down")
    assert RoundedWeights(weights.folder, "another").reports() is None
    assert matrices.find("decoder.norm") is None


def test_tower_and_projector_are_calibrated_on_images(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    job = _plan(artifact_cache, "ldpnet", vision="q8a8")
    data = job.calibration_data
    assert data is not None and sum(source.images for source in data.sources) > 0
    output = RoundedWeights(tmp_path, job.calibration_key())
    Calibration(job, data, output).run()
    reports = _reports(output)
    assert {"tower.embeddings.patch", "tower.layers.0.qkv", "image_projector.first"} <= set(reports)


def test_a_tied_table_has_the_calibrated_values_of_its_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are packed as the head, and nothing else of the table is."""
    checkpoint = write_random_checkpoint(
        tmp_path / "tied", "text", seed=0, num_hidden_layers=1, tie_word_embeddings=True
    )
    ends = plan_quantization("q4a8", embedding="q4a8", head="q4a8")
    job = plan_job(checkpoint, quantization=ends, calibration=SMALL)
    table = job.open_checkpoint().read("model.embed_tokens.weight").astype(np.float32)
    head = quantize(table, Q4NL, "nearest")  # plain packing searches for scales
    report = LayerReport("decoder.lm_head", "q4nl", 0.0, 0.0, False)
    weights = RoundedWeights(tmp_path, job.calibration_key())
    weights.write("head", RoundedPart({report.layer: head}, (report,)))
    weights.finish({"head": (report,)})
    monkeypatch.setattr("mvlm.compile.driver.find_or_calibrate", lambda *_: weights)
    pack_job(job, tmp_path / "calibrated")
    pack_job(replace(job, calibration=None), tmp_path / "plain")
    calibrated, plain = (_decoder_tables(tmp_path / name) for name in ("calibrated", "plain"))
    expected = PANELS.pack_quantized(head, Matrix(*table.shape, Q4NL, "int8"))
    arrays = ("q_weight", "q_scale", "q_row_scale", "q_levels")
    names = [f"decoder.lm_head.{name}" for name in arrays]
    assert list(calibrated) == list(plain) == names
    for name, array in zip(names, expected, strict=True):
        np.testing.assert_array_equal(calibrated[name], array)
        # Both may have chosen the same tables.
        assert name.endswith("q_levels") or (plain[name] != array).any()


def _decoder_tables(folder: Path) -> dict[str, np.ndarray]:
    """Return the packed arrays of the output head and of the embedding table."""
    names = [entry.name for entry in read_weights_index(folder).tensors]
    found = dict(zip(names, map_weights(folder), strict=True))
    return {name: found[name] for name in names if "lm_head" in name or "embed_tokens" in name}


@pytest.mark.parametrize("scheme", ["q0f32", "q4a8"])
def test_a_tied_table_is_a_layer_of_its_own_while_calibrating(
    artifact_cache: ArtifactCache, scheme: str
) -> None:
    """In any scheme: in float32 it would otherwise be looked up in a head that is never loaded."""
    config = read_config(artifact_cache.checkpoint("text"))
    tied = replace(config, language=replace(config.language, tie_word_embeddings=True))
    observed = ObservedMobileVLM(tied, PANELS, SCHEMES[scheme])
    names = [name for name, _ in observed.named_parameters()]
    assert [name for name in names if name.startswith("decoder.embed_tokens.")]


def test_weights_that_make_no_numbers_are_named(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    job = _plan(artifact_cache)
    data = job.calibration_data
    assert data is not None
    calibration = Calibration(job, data, RoundedWeights(tmp_path, "key"))
    read = calibration.read

    def huge(name: str) -> np.ndarray:
        return read(name) * (1e30 if name == "model.layers.1.mlp.up_proj.weight" else 1)

    calibration.read = huge
    with pytest.raises(CheckpointError, match=r"decoder\.layers\.1\.down"):
        calibration.run()
    assert (tmp_path / "layer-00.safetensors").exists() and not (tmp_path / REPORT).exists()
