"""`mvlm bench`: the document that programs rely on, and the table for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvlm.bench import bandwidth
from mvlm.runtime.profiler import OVERHEAD
from tests.artifacts import ArtifactCache
from tests.cli.command_line import mvlm

QUICK = ("--runs", "2", "--prompt-tokens", "12", "--tokens", "3", "--threads", "1")
SPEEDS = ("vision_ms", "prefill_tok_s", "decode_tok_s", "first_token_ms", "peak_rss_bytes")


@pytest.fixture(autouse=True)
def known_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real measurement, which takes seconds, has its own test."""
    monkeypatch.setattr(bandwidth, "measure_in_child", lambda threads, cores: [1e9, 3e9])


def test_bench_json(artifact_cache: ArtifactCache) -> None:
    result = mvlm("bench", artifact_cache.artifact("ldpnet"), *QUICK, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = result.json
    for name in SPEEDS:
        spread = report[name]
        assert 0 < spread["min"] <= spread["median"] <= spread["max"]
    assert report["threads"] == 1
    assert report["read_bandwidth_bytes_s"] == 2e9
    share = report["decode_tok_s"]["median"] * report["weight_bytes_per_token"] / 2e9
    assert report["bandwidth_share"] == pytest.approx(share)
    assert report["machine"]["cpu"] and len(report["machine"]["load_after"]) == 3
    assert {"python", "mvlm", "tvm", "apache-tvm-ffi", "numpy"} <= report["versions"].keys()
    assert report["plan"] == {"runs": 2, "prompt_tokens": 12, "tokens": 3}


def test_bench_of_a_text_model_has_no_vision(artifact_cache: ArtifactCache) -> None:
    report = mvlm("bench", artifact_cache.artifact("text"), *QUICK, "--json").json
    assert report["vision_ms"] == {"median": 0, "min": 0, "max": 0}
    assert report["decode_tok_s"]["median"] > 0


def test_bench_table(artifact_cache: ArtifactCache) -> None:
    shown = mvlm("bench", artifact_cache.artifact("text"), *QUICK).stdout
    for words in ("prefill", "decode", "tok/s", "2.0 GB/s read by 1 threads", "machine"):
        assert words in shown


@pytest.mark.extended
def test_bench_profile_names_every_kernel(artifact_cache: ArtifactCache) -> None:
    """Each kernel that `inspect` lists, as often as a run calls it."""
    artifact = artifact_cache.artifact("ldpnet", "q4a8")
    profile = mvlm("bench", artifact, *QUICK, "--profile", "--json").json["profile"]
    assert profile.keys() == {"vision_tower", "projector", "embed", "prefill", "decode"}
    listed = mvlm("inspect", artifact, "--json", "--kernels").json["kernels"]
    for function, runs in (("vision_tower", 1), ("prefill", 1), ("decode", 3)):
        found = {time["kernel"]: time["calls"] for time in profile[function]}
        assert found.pop(OVERHEAD) > 0
        assert found == {name: runs * use["calls"] for name, use in listed[function].items()}
        assert all(time["seconds"] > 0 for time in profile[function])
    shown = mvlm("bench", artifact, *QUICK, "--profile").stdout
    assert "decode, " in shown and "cached_attention" in shown


def test_bench_takes_an_image(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    result = mvlm(
        "bench", artifact_cache.artifact("ldpnet"), *QUICK, "--image", tmp_path / "no.png"
    )
    assert result.exit_code == 1 and "no file" in result.stderr


def test_bench_refuses_a_plan_over_the_context(artifact_cache: ArtifactCache) -> None:
    result = mvlm("bench", artifact_cache.artifact("ldpnet"), "--prompt-tokens", "5")
    assert result.exit_code == 2 and "the image takes 4" in result.stderr
    result = mvlm("bench", artifact_cache.artifact("ldpnet"), "--tokens", "100000")
    assert result.exit_code == 2 and "context" in result.stderr
