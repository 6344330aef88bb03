"""Models at their real size: `make test-real`. Takes 40 GB of disk and about an hour."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvlm.models.model_zoo import CLIP_NAME, PUBLISHED_MODELS
from mvlm.runtime.model import Model
from tests.forward import logits_of
from tests.reference import FEATURE_TOLERANCE, LOGIT_TOLERANCE, Reference

pytestmark = pytest.mark.real

GIGABYTE = 10**9
# Peaks of `mvlm compile` that are promised, in bytes.
PEAKS = {"1.7B": 4 * GIGABYTE, "3B": 5 * GIGABYTE, "7B": 24 * GIGABYTE}


def mvlm(*arguments: str | Path) -> tuple[dict[str, Any], int]:
    """Run a command; its document and the peak of its resident memory."""
    command = [sys.executable, "-m", "mvlm.cli", *map(str, arguments), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        printed = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return json.loads(printed), usage.ru_maxrss * 1024


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not stay: pytest keeps its own for some runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    "name", [n for n, published in PUBLISHED_MODELS.items() if published.projector]
)
def test_the_family(folder: Path, name: str) -> None:
    """From bfloat16 `.bin` files to an answer about an image, within the promised memory."""
    checkpoint, artifact = folder / "checkpoint", folder / "artifact"
    mvlm("synth", name, "-o", checkpoint)
    if not PUBLISHED_MODELS[name].tower_inside:
        mvlm("synth", CLIP_NAME, "-o", folder / CLIP_NAME)
    document, peak = mvlm("compile", checkpoint, "-o", artifact)
    assert document["published_as"] == name
    assert peak < PEAKS[name.rpartition("-")[2]]
    shutil.rmtree(checkpoint)
    image = Path(__file__).parents[2] / "models" / "bundled" / "images" / "demo.png"
    asked = ("--image", image, "--prompt", "What is this?", "--max-tokens", "4")
    answer, _ = mvlm("chat", artifact, *asked)
    assert answer["usage"]["image_tokens"] == 144
    assert len(answer["token_ids"]) == 4 or answer["finish_reason"] == "stop"


@pytest.mark.parametrize("name", ["MobileLLaMA-1.4B", "MobileLLaMA-2.7B"])
def test_parity_of_the_decoder(folder: Path, name: str) -> None:
    """Two layers of full width, heads of 128 and of 80, against torch."""
    checkpoint, artifact = folder / "checkpoint", folder / "artifact"
    mvlm("synth", name, "-o", checkpoint, "--layers", "2", "--seed", "1")
    mvlm("compile", checkpoint, "-o", artifact, "--quant", "q0f32")
    ids = np.random.default_rng(0).integers(3, 32_000, 77).tolist()
    logits = logits_of(Model(artifact), ids, capacity=128)
    expected = Reference(checkpoint).prefill_logits(ids)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=LOGIT_TOLERANCE)


@pytest.mark.parametrize("name", ["MobileVLM-1.7B", "MobileVLM-V2-3B"])
def test_parity_of_tower_and_projector(folder: Path, name: str) -> None:
    """All 23 layers of the ViT-L/14 at 336 pixels, and both LDPs at their widths."""
    checkpoint, artifact, tower = folder / "checkpoint", folder / "artifact", folder / CLIP_NAME
    mvlm("synth", name, "-o", checkpoint, "--layers", "1", "--seed", "1")
    mvlm("synth", CLIP_NAME, "-o", tower)
    mvlm("compile", checkpoint, "-o", artifact, "--quant", "q0f32")
    reference = Reference(checkpoint, tower)
    pixels = np.random.default_rng(0).standard_normal((1, 3, 336, 336), np.float32)
    model = Model(artifact)
    upload, download = model.device.upload, model.device.download
    features = download(model.vision_features(pixels))
    expected = reference.vision_features(pixels)
    # Features have grown to `scale` after 23 layers; the tolerance is for ones near one.
    scale = max(1.0, float(np.abs(expected).max()) / 4)
    assert np.abs(features - expected).max() < FEATURE_TOLERANCE * scale
    embeddings = download(model.project(upload(expected)))
    wanted = reference.projector_output(pixels)
    scale = max(1.0, float(np.abs(wanted).max()) / 4)
    assert np.abs(embeddings - wanted).max() < FEATURE_TOLERANCE * scale
