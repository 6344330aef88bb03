"""`mvlm bench --peer`: the options, the tables, the document, the verdict and its refusal."""

from __future__ import annotations

import functools
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mvlm.bench.machine_load import NO_LOAD, Load
from mvlm.bench.peers import benchmark, catalogue, files
from mvlm.bench.peers.benchmark import Tool
from mvlm.bench.peers.tool_process import ToolProcess
from mvlm.cli.shared import compare
from tests.artifacts import ArtifactCache
from tests.cli.command_line import Result, mvlm
from tests.reference import write_random_checkpoint

ONE = ("--peer", "torch", "--scenario", "prefill-64", "--runs", "2", "--threads", "1")


class Machine:
    """Fake tools on a machine whose load a test chooses."""

    def __init__(self) -> None:
        self.load = NO_LOAD
        self.options: dict[str, list[str]] = {}

    def start(self, name: str) -> ToolProcess:
        options = self.options.get(name, [])
        return ToolProcess(name, (sys.executable, "-m", "tests.bench.fake_peer", *options))


class Meter:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def settle(self) -> None: ...

    def restart(self) -> None: ...

    def load(self) -> Load:
        return self._machine.load


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(benchmark, "LoadMeter", lambda *_: Meter(machine))
    monkeypatch.setattr(benchmark, "measure_in_child", lambda *_: [1e9])
    started = functools.partial(benchmark.Benchmark, start=machine.start)
    monkeypatch.setattr(benchmark, "Benchmark", started)
    monkeypatch.setattr(compare, "find_artifact", lambda *_, **__: Path("an-artifact"))

    def prepared(peer: catalogue.Peer, *_: object, **__: object) -> Tool:
        return Tool(peer.name, peer.module, {}, peer.has_vision)

    monkeypatch.setattr(files, "prepare_peer", prepared)
    return machine


@pytest.fixture
def checkpoint(artifact_cache: ArtifactCache) -> Path:
    return artifact_cache.checkpoint("ldpnet")


def bench(checkpoint: Path, *arguments: str | Path) -> Result:
    return mvlm("bench", checkpoint, *arguments)


def test_bench_peers_table(machine: Machine, checkpoint: Path) -> None:
    machine.options = {"torch": ["seconds=0.04"]}
    result = bench(checkpoint, *ONE)
    assert (result.exit_code, result.stderr) == (0, "")
    for words in ("prefill, 64 tokens", "6,400 tok/s", "1,600 tok/s (4.00x)", "fake 1", "float32"):
        assert words in result.stdout


def test_bench_peers_goals_on_a_quiet_machine(machine: Machine, checkpoint: Path) -> None:
    machine.options = {"torch": ["seconds=0.02"]}
    result = bench(checkpoint, "--peer", "torch", "--scenario", "vision", "--runs", "1")
    assert result.exit_code == 0
    assert "speedup over torch" in result.stdout and "met" in result.stdout


def test_bench_peers_no_goals_on_a_noisy_machine(machine: Machine, checkpoint: Path) -> None:
    machine.load = Load(1.0, 0.5, 0.0)
    result = bench(checkpoint, "--peer", "torch", "--scenario", "vision", "--runs", "1")
    assert result.exit_code == 1
    assert "tower and projector" in result.stdout  # the numbers are there
    assert "required" not in result.stdout and "met" not in result.stdout
    assert result.stderr.startswith("error: no verdict, because the machine is not quiet: vision")
    assert "0.50 cores busy" in result.stderr and result.stderr.count("\n") == 1


def test_bench_peers_json(machine: Machine, checkpoint: Path) -> None:
    result = bench(checkpoint, *ONE, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    document = result.json
    (scenario,) = document["scenarios"]
    assert scenario["order"] == ["mvlm", "torch"] * 2
    assert scenario["systems"]["torch"]["values"] == [6400.0] * 2
    assert document["peers"]["torch"]["ratio"]["decode_tok_s"] is None
    assert document["threads"] == 1 and document["machine"]["cpu"]
    assert document["systems"]["mvlm"]["versions"] == {"fake": "1"}
    assert document["quiet"]["is_quiet"] and "--scenario prefill-64" in document["command"]


def test_bench_peers_json_on_a_noisy_machine(machine: Machine, checkpoint: Path) -> None:
    machine.load = Load(1.0, 0.0, 0.5)
    result = bench(checkpoint, *ONE, "--json")
    assert result.exit_code == 1 and not result.json["quiet"]["is_quiet"]


def test_bench_peers_reports_a_failing_tool(machine: Machine, checkpoint: Path) -> None:
    machine.options = {"torch": ["crash=prefill"]}
    result = bench(checkpoint, *ONE)
    assert result.exit_code == 1
    assert "6,400 tok/s" in result.stdout and "failed" in result.stdout
    assert result.stderr.startswith("error: prefill-64: torch ended at `prefill`: found SIGKILL")


def test_bench_peers_writes_speed_page(machine: Machine, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = bench(checkpoint, *ONE, "--write", tmp_path)
    assert result.exit_code == 0 and result.stderr.count("wrote") == 2
    page = (tmp_path / "speed.md").read_text()
    assert "| prefill, 64 tokens | 6,400 tok/s | 6,400 tok/s (1.00x) |" in page
    assert "Written by `mvlm bench ldpnet --peer torch" in page and "speed.svg" in page
    plot = (tmp_path / "speed.svg").read_text()
    assert "<svg" in plot and "tokens of the prompt" in plot and len(plot) < 100_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed.md", "speed.svg"]


def test_bench_peers_writes_nothing_on_a_noisy_machine(
    machine: Machine, checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    machine.load = Load(1.0, 0.5, 0.0)
    result = bench(checkpoint, *ONE, "--write", tmp_path)
    assert result.exit_code == 1 and "is left as it was" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_bench_peers_without_matplotlib_measures_nothing(
    machine: Machine, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = bench(checkpoint, *ONE, "--write", tmp_path)
    assert result.exit_code == 1 and "pip install 'mvlm[bench]'" in result.stderr


@pytest.mark.parametrize("peer", catalogue.PEERS.values(), ids=lambda peer: peer.name)
def test_bench_peers_missing_tool_names_its_install_command(
    peer: catalogue.Peer, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = metadata.version

    def version(name: str) -> str:
        if name in peer.packages:
            raise metadata.PackageNotFoundError(name)
        return plain(name)

    monkeypatch.setattr(catalogue.metadata, "version", version)
    result = bench(checkpoint, "--peer", peer.name)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert f"{peer.name} is not installed" in result.stderr
    assert f"pip install 'mvlm[{peer.extra}]'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--peer", "nobody"), "expected llama.cpp or"),
        (("--peer", "torch", "--scenario", "nothing"), "decode-under-load"),
        (("--peer", "torch", "--runs", "0"), "--runs"),
        (("--peer", "torch", "--tokens", "3"), "--tokens is not for a comparison"),
        (("--peer", "torch", "--profile"), "--profile is not for a comparison"),
        (("--peer", "torch", "--quant", "q8a8"), "--quant is not for a comparison"),
        (("--scenario", "decode"), "--scenario is for a comparison with --peer"),
        (("--write", "docs"), "--write is for a comparison with --peer"),
        (("--peer", "torch", "--write", "no/such/folder"), "--write"),
    ],
)
def test_bench_peers_bad_usage(checkpoint: Path, arguments: tuple[str, ...], words: str) -> None:
    result = bench(checkpoint, *arguments)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert words in result.stderr


def test_bench_peers_refuses_an_artifact(artifact_cache: ArtifactCache) -> None:
    result = bench(artifact_cache.artifact("text"), "--peer", "torch")
    assert result.exit_code == 2 and "expected a checkpoint's folder" in result.stderr


def test_bench_peers_text_model_has_no_vision_scenarios(artifact_cache: ArtifactCache) -> None:
    result = bench(artifact_cache.checkpoint("text"), "--peer", "torch", "--scenario", "vision")
    assert result.exit_code == 2 and "a model of text only" in result.stderr


def compared(result: Result, *scenarios: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Check a document of real tools, and return what it says of each by scenario."""
    document = result.json
    assert document["failures"] == []
    found = {scenario["name"]: scenario["systems"] for scenario in document["scenarios"]}
    assert found.keys() == set(scenarios)
    for systems in found.values():
        assert all(tool_result["spread"]["median"] > 0 for tool_result in systems.values())
    assert result.exit_code == (0 if document["quiet"]["is_quiet"] else 1)
    return found


def check_features(systems: dict[str, dict[str, Any]]) -> None:
    assert systems["torch"]["features_cosine"] == pytest.approx(1.0)
    assert systems["mvlm, 16-bit tower"]["features_cosine"] > 0.9999
    assert systems["mvlm"]["features_cosine"] > 0.99


@pytest.mark.extended
def test_bench_peers_torch(
    artifact_cache: ArtifactCache, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real tools and a real machine, in small; one artifact, of other tests, serves as both."""
    artifact = artifact_cache.artifact("ldpnet", "q4a8")
    monkeypatch.setattr(compare, "find_artifact", lambda *_, **__: artifact)
    chosen = ("--scenario", "vision", "--runs", "1")
    result = bench(artifact_cache.checkpoint("ldpnet"), "--peer", "torch", *chosen, "--json")
    check_features(compared(result, "vision")["vision"])


BUNDLED = Path(__file__).parents[2] / "models" / "bundled" / "mobilevlm-shapes"
ALL_KINDS = ("decode", "decode-under-load", "prefill-64", "vision", "first-token", "memory-text")


@pytest.mark.slow
def test_bench_peers_torch_on_the_bundled_model(empty_cache: Path) -> None:
    chosen = [word for name in ALL_KINDS for word in ("--scenario", name)]
    result = mvlm("bench", BUNDLED, "--peer", "torch", *chosen, "--runs", "1", "--json")
    check_features(compared(result, *ALL_KINDS)["vision"])


@pytest.mark.llama_cpp
def test_bench_peers_llama_cpp_text(artifact_cache: ArtifactCache, empty_cache: Path) -> None:
    names = [name for name in ALL_KINDS if name not in ("vision", "first-token")]
    chosen = [word for name in names for word in ("--scenario", name)]
    result = bench(
        artifact_cache.checkpoint("text"), "--peer", "llama.cpp", *chosen, "--runs", "1", "--json"
    )
    found = compared(result, *names)
    assert found["decode"]["llama.cpp"]["bandwidth_share"] > 0
    assert "REPACK = 1" in result.json["systems"]["llama.cpp"]["system_info"]


@pytest.mark.llama_cpp
def test_bench_peers_llama_cpp_vision(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ldpnetv2"
    vision = {"image_size": 96, "patch_size": 4}
    write_random_checkpoint(folder, "ldpnetv2", seed=0, vision=vision)
    chosen = ("--scenario", "vision", "--scenario", "first-token", "--runs", "1")
    result = mvlm("bench", folder, "--peer", "llama.cpp", "--peer", "torch", *chosen, "--json")
    check_features(compared(result, "vision", "first-token")["vision"])


@pytest.mark.llama_cpp
@pytest.mark.skipif(find_spec("ik_llama_cpp") is None, reason="needs the extra ik-llama-cpp")
def test_bench_peers_ik_llama_cpp_text(empty_cache: Path, tmp_path: Path) -> None:
    """A checkpoint with a tower, of which this tool has no use."""
    folder = tmp_path / "ldpnetv2"
    # IQ4_KS is for rows of multiples of 256.
    write_random_checkpoint(folder, "ldpnetv2", seed=0, hidden_size=256, intermediate_size=512)
    names = [name for name in ALL_KINDS if name not in ("vision", "first-token")]
    chosen = [word for name in names for word in ("--scenario", name)]
    result = mvlm("bench", folder, "--peer", "ik_llama.cpp", *chosen, "--runs", "1", "--json")
    found = compared(result, *names)
    assert found["decode"]["ik_llama.cpp"]["bandwidth_share"] > 0
    facts = result.json["systems"]["ik_llama.cpp"]
    for words in ("- type iq4_ks", "- type q6_K", "fused_up_gate = 1", "flash_attn    = 1"):
        assert any(words in line for line in facts["log"]), words
