"""What mvlm promises, on a model of two layers, in a minute: `make test-tiny`. Read this first.

A checkpoint is compiled into an artifact, which is verified, moved, and asked about an image. All
that a user does goes through the command line here; the tests of the folders look inside.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.artifacts import ArtifactCache
from tests.cli.command_line import Result, mvlm
from tests.once import make_once
from tests.reference import FEATURE_TOLERANCE, LOGIT_TOLERANCE, Reference, preprocess

QUESTION = ("--prompt", "What is in the picture?", "--max-tokens", "8")


@pytest.fixture(scope="module")
def checkpoint(artifact_cache: ArtifactCache) -> Path:
    """A MobileVLM with random weights, in the layout of the official releases."""
    return artifact_cache.checkpoint("ldpnet")


@pytest.fixture(scope="module")
def exact(checkpoint: Path, shared_folder: Path) -> Path:
    """Its artifact in float32."""

    def compiled(artifact: Path) -> None:
        result = mvlm("compile", checkpoint, "--quant", "q0f32", "-o", artifact)
        assert result.exit_code == 0, result.stderr

    return make_once(shared_folder / "tiny", compiled)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def ask(artifact: Path, image: Path, *options: str | Path) -> Result:
    result = mvlm("chat", artifact, "--image", image, *QUESTION, "--json", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    return result


def refused(result: Result, exit_code: int) -> str:
    """Return the one line that a failure prints: never a traceback, and nothing else."""
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr


def test_an_artifact_says_what_it_is_and_is_verified(exact: Path) -> None:
    assert mvlm("verify", exact).exit_code == 0
    manifest = mvlm("inspect", exact, "--json").json
    assert manifest["quantization"]["language"] == "q0f32"
    assert manifest["target"]["name"] == "host"
    present = {
        path.relative_to(exact).as_posix()
        for path in exact.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert {entry["path"] for entry in manifest["files"]} == present


def test_it_answers_about_an_image_and_always_the_same(exact: Path, image: Path) -> None:
    first, second = ask(exact, image).json, ask(exact, image).json
    assert first["text"] == second["text"]
    assert first["token_ids"] == second["token_ids"]
    assert first["usage"]["image_tokens"] == 4
    assert 0 < first["usage"]["completion_tokens"] <= 8
    sampled = ask(exact, image, "--temperature", "5", "--seed", "1").json["token_ids"]
    assert sampled == ask(exact, image, "--temperature", "5", "--seed", "1").json["token_ids"]
    assert sampled != first["token_ids"]


def test_every_stage_agrees_with_torch(
    checkpoint: Path, exact: Path, image: Path, tmp_path: Path
) -> None:
    tokens = ask(exact, image, "--dump", tmp_path / "stages.npz").json["token_ids"]
    reference = Reference(checkpoint)
    with Image.open(image) as opened, np.load(tmp_path / "stages.npz") as stages:
        pixels = preprocess(checkpoint, [opened])
        ids = stages["prompt_ids"].tolist()
        np.testing.assert_array_equal(stages["pixel_values"], pixels)
        for stage, expected, tolerance in (
            ("vision_features", reference.vision_features(pixels), FEATURE_TOLERANCE),
            ("projector_output", reference.projector_output(pixels), FEATURE_TOLERANCE),
            ("prefill_logits", reference.prefill_logits(ids, pixels), LOGIT_TOLERANCE),
        ):
            np.testing.assert_allclose(stages[stage], expected, rtol=0, atol=tolerance)
    assert tokens == reference.greedy(ids, pixels, len(tokens))


def test_quantized_it_is_smaller_and_answers_too(
    artifact_cache: ArtifactCache, exact: Path, image: Path
) -> None:
    quantized = artifact_cache.artifact("ldpnet", "q4a8")

    def weights(artifact: Path) -> int:
        return sum(path.stat().st_size for path in (artifact / "weights").iterdir())

    assert weights(quantized) < weights(exact) / 3
    answer = ask(quantized, image).json
    assert answer["token_ids"] == ask(quantized, image).json["token_ids"]


def test_it_runs_wherever_it_is_copied(exact: Path, image: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(exact, tmp_path / "elsewhere")
    assert ask(moved, image).json["token_ids"] == ask(exact, image).json["token_ids"]


def test_a_flipped_bit_is_found_before_anything_is_loaded(
    exact: Path, image: Path, tmp_path: Path
) -> None:
    damaged = shutil.copytree(exact, tmp_path / "damaged")
    library = damaged / "lib" / "model.so"
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(data)
    for verb in (("verify", damaged), ("chat", damaged, "--image", image, *QUESTION)):
        assert "lib/model.so" in refused(mvlm(*verb), 1)


def test_an_artifact_of_another_version_is_refused_with_a_remedy(
    exact: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(exact, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    expected, manifest["schema"] = manifest["schema"], manifest["schema"] + 1
    (other / "manifest.json").write_text(json.dumps(manifest))
    said = refused(mvlm("verify", other), 1)
    assert f"expected schema {expected}, found schema {expected + 1}. Compile the" in said


def test_files_that_are_no_images_or_checkpoints_are_refused(exact: Path, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.png"
    nonsense.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert "nonsense.png" in refused(mvlm("chat", exact, "--image", nonsense, *QUESTION), 1)
    (tmp_path / "config.json").write_text('{"model_type": "mobilevlm", "hidden_size": -1}')
    refused(mvlm("compile", tmp_path, "-o", tmp_path / "artifact"), 1)
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["chat"],
        ["chat", "no-such-place", *QUESTION],
        ["compile", "no-such-place"],
        ["compile", ".", "--quant", "q3"],
        ["compile", ".", "--target", "toaster"],
    ],
    ids=" ".join,
)
def test_bad_usage_exits_with_2(arguments: list[str]) -> None:
    refused(mvlm(*arguments), 2)


def test_the_runtime_loads_neither_the_compiler_nor_torch(exact: Path) -> None:
    code = (
        "import sys; from mvlm.cli.app import run; code = run(sys.argv[1:]);"
        "sys.exit(code or bool({'tvm', 'torch'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, "chat", str(exact), *QUESTION]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
