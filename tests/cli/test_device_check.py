"""`mvlm device-check`, and `mvlm bench --from-report`, which reads what it writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mvlm.bench import device_check
from mvlm.bench.quality.bundled_model import BUNDLED
from mvlm.runtime.artifact.layout import MODEL_LIBRARY
from tests.artifacts import ArtifactCache
from tests.cli.command_line import mvlm

BUNDLED_IMAGE = BUNDLED.parent / "images" / "demo.png"
QUICK = ("--runs", "1", "--prompt-tokens", "12", "--tokens", "3", "--threads", "1")


@pytest.fixture(autouse=True)
def known_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real measurement, which takes seconds, has its own test."""
    monkeypatch.setattr(device_check, "measure_in_child", lambda threads, cores: [2e9])


def test_device_check_report_and_table(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    path, artifact = tmp_path / "report.json", artifact_cache.artifact("ldpnet")
    options = ("--image", BUNDLED_IMAGE, "-o", path, *QUICK)
    shown = mvlm("device-check", artifact, *options)
    assert shown.exit_code == 0, shown.stderr
    report = json.loads(path.read_text())
    assert report["chat"]["usage"]["image_tokens"] > 0 and report["chat"]["image"]
    assert report["speeds"]["threads"] == 1
    assert report["speeds"]["read_bandwidth_bytes_s"] == 2e9
    assert report["verified_s"] > 0 and report["loaded_s"] > 0
    for moment in ("before", "after"):
        assert len(report[moment]["cores"]) >= 1
        assert report[moment].keys() >= {"temperatures", "power", "power_mode", "load"}
    table = mvlm("bench", "--from-report", path, "--from-report", path)
    assert table.exit_code == 0
    assert table.stdout.splitlines()[1] == "|---|--:|--:|"
    for words in ("decode, tok/s", "governor", "ldpnet, q0f32", "answer"):
        assert words in table.stdout and words in shown.stdout


def test_device_report_table_goes_into_the_docs(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    assert (
        mvlm("device-check", artifact_cache.artifact("text"), "-o", report, *QUICK).exit_code == 0
    )
    page = tmp_path / "devices.md"
    refused = mvlm("bench", "--from-report", report, "--write", tmp_path)
    assert refused.exit_code == 2 and "devices.md" in refused.stderr
    page.write_text("Before\n<!-- reports -->\nold\n<!-- /reports -->\nAfter\n")
    assert mvlm("bench", "--from-report", report, "--write", tmp_path).exit_code == 0
    text = page.read_text()
    assert "| decode, tok/s |" in text and "old" not in text
    assert text.startswith("Before\n") and text.endswith("After\n")


def test_device_check_takes_the_bundles_image(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    artifact = shutil.copytree(artifact_cache.artifact("ldpnet"), tmp_path / "artifact")
    (tmp_path / "images").mkdir()
    shutil.copy(BUNDLED_IMAGE, tmp_path / "images" / "demo.png")
    result = mvlm("device-check", artifact, "-o", tmp_path / "r.json", "--json", *QUICK)
    assert result.json["chat"]["image"] == "demo.png"
    assert result.json["report"] == str(tmp_path / "r.json")


def test_device_check_of_a_text_model(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    options = ("--image", BUNDLED_IMAGE, "-o", tmp_path / "r.json", "--json", *QUICK)
    chat = mvlm("device-check", artifact_cache.artifact("text"), *options).json["chat"]
    assert chat["image"] is None and chat["usage"]["image_tokens"] == 0


def test_device_check_of_a_damaged_artifact_leaves_no_report(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    artifact = shutil.copytree(artifact_cache.artifact("text"), tmp_path / "artifact")
    with (artifact / MODEL_LIBRARY).open("ab") as file:
        file.write(b"x")
    refused = mvlm("device-check", artifact, "-o", tmp_path / "r.json", *QUICK)
    assert refused.exit_code == 1 and "wrong size" in refused.stderr
    assert not (tmp_path / "r.json").exists()


def test_device_check_without_a_folder_for_the_report(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    refused = mvlm(
        "device-check", artifact_cache.artifact("text"), "-o", tmp_path / "none" / "r.json"
    )
    assert refused.exit_code == 2 and "which is no folder" in refused.stderr


def test_bench_from_report_refuses_to_measure(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    refused = mvlm("bench", artifact_cache.artifact("text"), "--from-report", tmp_path / "r.json")
    assert refused.exit_code == 2 and "measures nothing" in refused.stderr
    assert mvlm("bench").exit_code == 2
    refused = mvlm("bench", "--from-report", tmp_path / "r.json")
    assert refused.exit_code == 1 and "cannot read" in refused.stderr
