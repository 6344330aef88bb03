"""`mvlm inspect`, `mvlm verify` and `mvlm targets`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mvlm.bench.report import weight_bytes_per_token
from mvlm.cli.shared.terminal import readable_bytes
from mvlm.runtime.artifact import read_manifest
from mvlm.runtime.artifact.layout import KERNELS, MODEL_LIBRARY, WEIGHTS
from mvlm.runtime.artifact.weights import read_weights_index
from mvlm.runtime.machine import read_machine
from mvlm.runtime.targets import known_targets
from tests.artifacts import ArtifactCache
from tests.cli.command_line import mvlm
from tests.cli.manifests import ARCHITECTURE, edit_manifest


@pytest.fixture(scope="module")
def artifact(artifact_cache: ArtifactCache) -> Path:
    return artifact_cache.artifact("ldpnet")


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(artifact, tmp_path / "artifact")


def test_inspect_shows_the_manifest(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    written = json.loads((artifact / "manifest.json").read_bytes())
    assert mvlm("inspect", artifact, "--json").json == written
    shown = mvlm("inspect", artifact).stdout
    for words in (manifest.digest, "ldpnet", MODEL_LIBRARY, manifest.abi.tvm):
        assert words in shown


def test_inspect_lists_the_kernels_of_each_function(artifact: Path) -> None:
    document = mvlm("inspect", artifact, "--json", "--kernels").json
    uses = document["kernels"]
    layers = document["model"]["layers"]
    assert uses["vision_tower"]["attention"]["calls"] == document["model"]["vision"]["layers_used"]
    # Queries, output, gate and up, and down in every layer, and the output head.
    linears = (use["calls"] for name, use in uses["decode"].items() if name.startswith("linear"))
    assert sum(linears) == 4 * layers + 1


def test_inspect_counts_the_bytes_of_each_function(artifact: Path) -> None:
    document = mvlm("inspect", artifact, "--json", "--kernels").json
    total = document["kernel_totals"]["decode"]
    assert total["weight_bytes"] == weight_bytes_per_token(read_weights_index(artifact))
    for function, uses in document["kernels"].items():
        for key, value in document["kernel_totals"][function].items():
            assert value == sum(use[key] for use in uses.values()), (function, key)


def test_inspect_shows_the_bytes_as_a_table(artifact: Path) -> None:
    total = mvlm("inspect", artifact, "--json", "--kernels").json["kernel_totals"]["decode"]
    shown = mvlm("inspect", artifact, "--kernels").stdout
    heading, header, *rows = shown[shown.index("decode: ") :].split("\n\n")[0].splitlines()
    assert heading.startswith(f"decode: {total['calls']} calls of ")
    assert header.split()[:4] == ["kernel", "calls", "weights", "read"]
    last, cache = rows[-2:]
    assert last.split()[:2] == ["total", str(total["calls"])]
    assert readable_bytes(total["weight_bytes"]) in last
    assert len({len(line) for line in (header, *rows[:-1])}) == 1
    assert cache.startswith(
        f"KV cache bytes a position: {total['cache_read_bytes_per_position']:,} read"
    )
    assert "cache" not in shown[shown.index("projector: ") :]
    assert "/row" in shown[shown.index("embed: ") :]


def test_inspect_refuses_a_damaged_list_of_kernels(copy: Path) -> None:
    (copy / KERNELS).write_text('{"decode": {"linear": 3}}')
    result = mvlm("inspect", copy, "--kernels")
    assert result.exit_code == 1 and "kernels.json" in result.stderr
    assert mvlm("inspect", copy).exit_code == 0


def test_verify_says_that_all_is_well(artifact: Path) -> None:
    digest = read_manifest(artifact).digest
    result = mvlm("verify", artifact, "--json")
    assert result.exit_code == 0
    assert result.json["digest"] == digest
    assert result.json["intact"] is result.json["fits_this_machine"] is True
    shown = mvlm("verify", artifact).stdout
    assert digest in shown and "runs here  yes" in shown


def test_verify_names_the_damage(copy: Path) -> None:
    head = copy / WEIGHTS / "head.bin"
    content = bytearray(head.read_bytes())
    content[-1] ^= 1
    head.write_bytes(content)
    result = mvlm("verify", copy)
    assert result.exit_code == 1 and f"{head} is damaged" in result.stderr
    head.unlink()
    assert "is missing" in mvlm("verify", copy).stderr


def test_verify_names_an_unexpected_file(copy: Path) -> None:
    (copy / "virus.so").touch()
    result = mvlm("verify", copy)
    assert result.exit_code == 1 and "virus.so is not in the manifest" in result.stderr


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (ARCHITECTURE, "the artifact is for another architecture"),
        ("abi.tvm", "the artifact was compiled by another TVM"),
    ],
)
def test_verify_says_where_a_whole_artifact_does_not_run(copy: Path, key: str, words: str) -> None:
    edit_manifest(copy, key, "other")
    result = mvlm("verify", copy, "--json")
    assert (result.exit_code, result.json["intact"]) == (0, True)
    assert result.json["fits_this_machine"] is False and words in result.json["incompatibility"]
    assert f"runs here  no: {words}" in mvlm("verify", copy).stdout


def test_targets_describes_each() -> None:
    document = mvlm("targets", "--json").json
    assert [entry["name"] for entry in document["targets"]] == list(known_targets())
    host = document["targets"][0]
    assert host["ready"] is True
    assert host["architecture"] == read_machine().architecture
    found = {each["name"]: each["found"] for each in host["builds"][0]["requirements"]}
    assert found.keys() == {"kernels", "compiler", "linker", "runtime library"}
    assert all(found.values())
    assert "machine" not in document
    assert "host: this machine's CPU" in mvlm("targets").stdout


def test_targets_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    host = mvlm("targets", "host", "--json").json["targets"][0]
    assert host["ready"] is False
    linker = next(each for each in host["builds"][0]["requirements"] if each["name"] == "linker")
    missing = linker["missing"]
    assert linker["found"] is None
    assert missing["found"] == "no-such-compiler" and "CC" in missing["fix"]
    shown = mvlm("targets", "host")
    assert shown.exit_code == 0 and "unset CC" in shown.stdout


def test_targets_says_what_another_device_needs(empty_cache: Path) -> None:
    shown = mvlm("targets", "snapdragon-888-cpu").stdout
    if read_machine().architecture != "aarch64":
        assert "missing: no TVM runtime for aarch64" in shown and "pip download" in shown
    assert "missing: this mvlm has no kernels for cuda yet" in mvlm("targets").stdout


def test_targets_from_a_user_file(tmp_path: Path) -> None:
    example = mvlm("targets", "--example").stdout
    board = tmp_path / "board.toml"
    board.write_text(example.replace('name = "snapdragon-888-cpu"', 'name = "my-board"'))
    assert mvlm("targets", board, "--json").json["targets"][0]["name"] == "my-board"
    board.write_text(example.replace("threads = 4", "threads = -4"))
    refused = mvlm("targets", board)
    assert refused.exit_code == 1 and "key 'cpu.threads' is wrong" in refused.stderr
    assert mvlm("targets", tmp_path / "none.toml").exit_code == 2
    assert mvlm("targets", "abacus").exit_code == 2


def test_targets_detects_this_machine() -> None:
    machine = read_machine()
    detected = mvlm("targets", "--detect", "--json").json["machine"]
    assert detected["cpu"] == machine.cpu and detected["features"] == sorted(machine.features)
    assert (detected["libc"], detected["page_bytes"]) == (machine.libc, machine.page_bytes)
    assert machine.cpu in mvlm("targets", "--detect").stdout
