"""What is planned, and the key under which its artifact is kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mvlm.compile import job as job_module
from mvlm.compile.cache import cached_artifact, is_artifact
from mvlm.compile.cache_folder import cache_folder
from mvlm.compile.calibration_data.request import CalibrationRequest
from mvlm.compile.job import CompileJob, plan_job
from mvlm.compile.provenance import files_digest, source_digest
from mvlm.models.config.read import read_config
from mvlm.models.quantization import plan_quantization
from mvlm.runtime.errors import CheckpointError, ConfigError, UsageError
from mvlm.runtime.machine import Machine, read_machine
from tests.artifacts import ArtifactCache
from tests.reference import write_random_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A V1 with its tower beside it."""
    return write_random_checkpoint(tmp_path / "model", "ldpnet", seed=0)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- planning -----------------------------------------------------------------------------------


def test_job_defaults(checkpoint: Path) -> None:
    job = plan_job(checkpoint)
    assert job.quantization.names() == {
        "language": "q4a8",
        "embedding": "q8a8",
        "head": "q8a8",
        "vision": "q16a16",
        "cache": "int8",
    }
    assert (job.target.name, job.platform) == ("host", read_machine().platform)
    assert (job.context, job.prefill_chunk) == (2048, 512)
    assert job.name == "model"
    assert job.config == read_config(checkpoint)
    plain = plan_job(checkpoint, quantization="q0f32").quantization.names()
    assert plain.pop("cache") == "float32"
    assert set(plain.values()) == {"q0f32"}
    small = plan_job(checkpoint, context=100)
    assert (small.context, small.prefill_chunk) == (100, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "q3"}, r"unknown quantization: expected .*q4f16_1.*found 'q3'"),
        ({"context": 0}, r"--context: expected 2 to 2048, found 0"),
        ({"context": 1}, r"--context: expected 2 to 2048, found 1"),
        ({"context": 2049}, r"--context.*found 2049"),
        ({"prefill_chunk": 0}, r"--prefill-chunk.*found 0"),
        ({"prefill_chunk": -7}, r"--prefill-chunk"),
        ({"prefill_chunk": 1 << 20}, r"--prefill-chunk"),
    ],
)
def test_job_options_out_of_range(checkpoint: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_job(checkpoint, **options)


def test_a_context_that_no_cache_holds_is_refused_before_anything_is_compiled(
    tmp_path: Path,
) -> None:
    """A configuration may claim 2^24 positions; settings hold no more than 2^20."""
    folder = write_random_checkpoint(
        tmp_path / "long", "text", seed=0, max_position_embeddings=1 << 24
    )
    with pytest.raises(UsageError, match="--context"):
        plan_job(folder, context=1 << 23)
    assert plan_job(folder).context <= 1 << 20


@pytest.mark.parametrize("place", ["nowhere", "a file"])
def test_job_without_a_checkpoint(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(UsageError, match="is not a folder"):
        plan_job(tmp_path / place)


@pytest.mark.parametrize("key", ["hidden_size", "rms_norm_eps", "mm_hidden_size"])
def test_a_configuration_without_a_key(checkpoint: Path, key: str) -> None:
    values = json.loads((checkpoint / "config.json").read_text())
    del values[key]
    (checkpoint / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=key):
        plan_job(checkpoint)


def test_an_unknown_projector(checkpoint: Path) -> None:
    edit(checkpoint / "config.json", mm_projector_type="qformer")
    with pytest.raises(ConfigError, match=r"unknown projector.*ldpnetv2.*qformer"):
        plan_job(checkpoint)


# --- keys ---------------------------------------------------------------------------------------


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


CHANGES: dict[str, Callable[[Path], object]] = {
    "a weight": lambda folder: flip_last_byte(folder / "model.safetensors"),
    "a weight of the tower": lambda folder: flip_last_byte(
        folder.with_name("model-clip") / "model.safetensors"
    ),
    "the tokenizer": lambda folder: flip_last_byte(folder / "tokenizer.model"),
    "a key of the configuration": lambda folder: edit(folder / "config.json", rms_norm_eps=1e-5),
    "the padding": lambda folder: edit(folder / "config.json", image_aspect_ratio="square"),
    "a key of the tower": lambda folder: edit(
        folder.with_name("model-clip") / "config.json",
        vision_config={
            **json.loads((folder.with_name("model-clip") / "config.json").read_text())[
                "vision_config"
            ],
            "layer_norm_eps": 1e-6,
        },
    ),
    "the image's mean": lambda folder: edit(
        folder.with_name("model-clip") / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5]
    ),
    "the end of sequence": lambda folder: edit(
        folder / "generation_config.json", eos_token_id=[2, 3]
    ),
    "the tokenizer's convention": lambda folder: edit(
        folder / "tokenizer_config.json", legacy=True
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_job_key_changes_with(checkpoint: Path, change: str) -> None:
    before = plan_job(checkpoint).key()
    CHANGES[change](checkpoint)
    assert plan_job(checkpoint).key() != before


@pytest.mark.parametrize(
    "options",
    [
        {"quantization": "q0f16"},
        {"quantization": plan_quantization(vision="q4f16_1")},
        {"quantization": plan_quantization(embedding="q4a8")},
        {"quantization": plan_quantization(head="q4a8")},
        {"quantization": plan_quantization(cache="float16")},
        {"quantization": plan_quantization(rounding="nearest")},
        {"allow_nonfinite": True},
        {"context": 1024},
        {"prefill_chunk": 64},
        {"target": "snapdragon-888-cpu"},
    ],
)
def test_key_changes_with_options(checkpoint: Path, options: dict[str, Any]) -> None:
    assert plan_job(checkpoint, **options).key() != plan_job(checkpoint).key()


def test_key_changes_with_the_machine(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, here = plan_job(checkpoint), read_machine()
    keys = {job.key()}
    for other in (
        replace(here, architecture="another"),
        replace(here, cpu="another"),
        replace(here, features=here.features - {min(here.features)}),
    ):

        def machine(other: Machine = other) -> Machine:
            return other

        monkeypatch.setattr(job_module, "read_machine", machine)
        keys.add(job.key())
    assert len(keys) == 4
    # How many cores are free, and how much memory there is, changes no code.
    monkeypatch.setattr(job_module, "read_machine", lambda: replace(here, cores=7, memory_bytes=1))
    assert job.key() in keys


def test_job_key_for_a_device(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field of its description is in it; the machine that compiles is not."""
    job = plan_job(checkpoint, target="snapdragon-888-cpu")
    assert plan_job(checkpoint, target=job.target, platform="android").key() != job.key()
    wider = replace(job.target, needs=replace(job.target.needs, page_bytes=1 << 17))
    assert plan_job(checkpoint, target=wider).key() != job.key()
    key, here = job.key(), read_machine()
    monkeypatch.setattr(job_module, "read_machine", lambda: replace(here, cpu="another"))
    assert job.key() == key


@pytest.mark.parametrize("name", ["source_digest", "package_versions"])
def test_key_changes_with_what_compiles(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    job = plan_job(checkpoint)
    before = job.key()
    monkeypatch.setattr(job_module, name, lambda: "another")
    assert job.key() != before


def test_key_is_the_same_elsewhere_and_later(checkpoint: Path, tmp_path: Path) -> None:
    before = plan_job(checkpoint).key()
    copies = tmp_path / "copies"
    for name in ("model", "model-clip"):
        shutil.copytree(checkpoint.with_name(name), copies / name)
    (copies / "model" / "README.md").write_text("changes nothing")
    assert plan_job(copies / "model").key() == before
    assert plan_job(copies / "model", vision_tower=copies / "model-clip").key() == before
    # Also in another process, with another seed for hashes.
    program = (
        "import sys; from pathlib import Path; from mvlm.compile.job import plan_job; "
        "print(plan_job(Path(sys.argv[1])).key())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, checkpoint], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == before


def test_key_reads_the_checkpoint_anew(checkpoint: Path) -> None:
    job = plan_job(checkpoint)
    before = job.key()
    flip_last_byte(checkpoint / "model.safetensors")
    assert job.key() != before


def test_files_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "2")):
        (tmp_path / name).write_text(text)
    both = [tmp_path / "a", tmp_path / "b"]
    before = files_digest(both)
    assert files_digest(reversed(both)) == before
    (tmp_path / "a").write_text("2")
    (tmp_path / "b").write_text("1")
    assert files_digest(both) != before


def test_source_digest_is_stable() -> None:
    assert source_digest() == source_digest()
    assert len(source_digest()) == 64


def test_a_checkpoint_without_a_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer.*tokenizer\.model"):
        plan_job(checkpoint).key()


# --- the cache ----------------------------------------------------------------------------------


def test_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MVLM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "mvlm"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "mvlm"
    monkeypatch.setenv("MVLM_CACHE", str(tmp_path / "y"))
    assert cache_folder() == tmp_path / "y"
    monkeypatch.setenv("MVLM_CACHE", "")
    assert cache_folder() == tmp_path / "x" / "mvlm"


def test_cached_artifacts_have_folders_of_their_own(checkpoint: Path, empty_cache: Path) -> None:
    jobs: list[CompileJob] = [plan_job(checkpoint, quantization=q) for q in ("q0f32", "q0f16")]
    places = {cached_artifact(job) for job in jobs}
    assert len(places) == 2
    for place in places:
        assert place.is_relative_to(empty_cache)
        assert not is_artifact(place)
        assert not empty_cache.exists()


def test_is_artifact(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    assert is_artifact(artifact_cache.artifact("text"))
    assert not is_artifact(tmp_path)
    assert not is_artifact(tmp_path / "nowhere")


def test_calibration_is_refused_with_a_graph_from_onnx(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be calibrated"):
        plan_job(checkpoint, vision_onnx=tmp_path, calibration=CalibrationRequest())
