"""The whole chat on the emulated device: compiled here, run there.

By default with the device's own kernels; in float32, and on another board, on demand.

What an x86 machine compiles for the Snapdragon's cores answers like what it compiles for itself,
and refuses a device that is not the one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvlm.bench.quality.bundled_model import BUNDLED
from mvlm.runtime.artifact import read_manifest
from mvlm.runtime.targets.catalogue import board_file
from tests.arm.conftest import Compile
from tests.arm.emulator import KRYO_CPU, run_mvlm
from tests.artifacts import ArtifactCache
from tests.reference import IMAGE_TOKEN, Reference
from tests.reference.integer_decoder import IntegerDecoder

IMAGE = BUNDLED.parent / "images" / "demo.png"
QUESTION = "What is in the picture?"
TOKENS = 16
# The oracle's logits for the first positions, whose activations round the same way in both.
EXACT = 1e-5
# Sooner or later an activation lies on the border between two integers, and rounds one way in
# float32 and the other in float64. That moves logits by 0.1 to 0.25, as disturbing the oracle's own
# input by a ten millionth does; so far both may be apart, and a token must lead by twice that.
ROUNDING = 0.3


def asked(artifact: Path, *options: str | Path) -> list[str | Path]:
    request = ["--image", IMAGE, "--prompt", QUESTION, "--max-tokens", str(TOKENS)]
    return ["chat", artifact, *request, "--temperature", "0", "--json", *options]


def chat(artifact: Path, *options: str | Path, cpu: str = KRYO_CPU) -> dict[str, Any]:
    done = run_mvlm(*asked(artifact, *options), cpu=cpu)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.extended
def test_float32_answers_as_on_this_machine(compiled: Compile) -> None:
    from tests.cli.command_line import mvlm

    theirs = chat(compiled("snapdragon-888-cpu", "q0f32"))
    here = mvlm(*asked(compiled("host", "q0f32"))).json
    for key in ("token_ids", "text", "finish_reason"):
        assert theirs[key] == here[key]
    assert len(theirs["token_ids"]) > 2


@pytest.mark.extended
def test_integers_answer_as_the_oracle(compiled: Compile, tmp_path: Path) -> None:
    """4-bit weights and 8-bit activations, by the kernels for `sdot`."""
    dump = tmp_path / "dump.npz"
    answer = chat(compiled("snapdragon-888-cpu", "q4a8"), "--dump", dump)
    with np.load(dump) as stages:
        pixels, ids = stages["pixel_values"], stages["prompt_ids"].tolist()
        prompt, steps = stages["prefill_logits"], stages["step_logits"]
    decoder, image = IntegerDecoder(BUNDLED), Reference(BUNDLED).projector_output(pixels)[0]
    parts = [image if token == IMAGE_TOKEN else decoder.embed([token]) for token in ids]
    expected = decoder.read(np.concatenate(parts))
    np.testing.assert_allclose(prompt[:2], expected[:2], rtol=0, atol=EXACT)
    np.testing.assert_allclose(prompt[-1], expected[-1], rtol=0, atol=ROUNDING)
    found = expected[-1]
    for number, token in enumerate(answer["token_ids"]):
        best, second = np.sort(found)[::-1][:2]
        assert best - second > 2 * ROUNDING, "take another image: this one has a tie"
        assert found.argmax() == token
        np.testing.assert_allclose(steps[number], found, rtol=0, atol=ROUNDING)
        found = decoder.read(decoder.embed([token]))[-1]


@pytest.mark.extended
def test_the_artifact_is_the_devices(compiled: Compile) -> None:
    artifact = compiled("snapdragon-888-cpu", "q4a8")
    target = read_manifest(artifact).target
    assert (target.device.cpu.architecture, target.requirements.platform) == ("aarch64", "linux")
    assert target.device.cpu.features == ("asimd", "asimddp", "asimdhp", "atomics")
    checked = json.loads(run_mvlm("verify", artifact, "--json").stdout)
    assert checked["intact"] is True and checked["fits_this_machine"] is True


@pytest.mark.extended
def test_another_architecture(artifact_cache: ArtifactCache) -> None:
    refused = run_mvlm(*asked(artifact_cache.artifact("ldpnet")))
    assert refused.returncode == 1
    assert "for another architecture: expected aarch64 (this machine)" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.extended
def test_a_core_without_dot_products(compiled: Compile) -> None:
    """A Cortex-A53 is Armv8.0: it is named what it lacks, and nothing is loaded."""
    refused = run_mvlm(*asked(compiled("snapdragon-888-cpu", "q4a8")), cpu="cortex-a53")
    assert refused.returncode == 1
    assert "needs CPU features that this machine lacks: expected asimddp, asimdhp" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.extended
def test_a_board_of_ones_own(compiled: Compile, tmp_path: Path) -> None:
    """A Raspberry Pi 4, whose Cortex-A72 has no dot products: plain vectors take their place."""
    board = tmp_path / "raspberry-pi-4.toml"
    example = board_file("snapdragon-888-cpu").read_text(encoding="utf-8")
    lines = {
        'name = "snapdragon-888-cpu"': 'name = "raspberry-pi-4"',
        'llvm = "cortex-a76"': 'llvm = "cortex-a72"',
        'features = ["asimd", "asimddp", "asimdhp", "atomics"]': 'features = ["asimd"]',
    }
    for old, new in lines.items():
        assert old in example
        example = example.replace(old, new)
    board.write_text(example, encoding="utf-8")
    artifact = compiled(str(board), "q4a8")
    assert "circle" in chat(artifact, cpu="cortex-a72")["text"]


@pytest.mark.extended
def test_the_device_knows_itself() -> None:
    machine = json.loads(run_mvlm("targets", "--detect", "--json").stdout)["machine"]
    assert (machine["architecture"], machine["platform"]) == ("aarch64", "linux")
    assert {"asimd", "asimddp", "asimdhp", "atomics"} <= set(machine["features"])
    assert machine["libc"].startswith("glibc 2.")
