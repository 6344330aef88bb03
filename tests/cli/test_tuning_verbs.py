"""`mvlm tune`, `logs` and `device`: what they refuse, and what the verbs for logs print."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from mvlm.bench.quality.bundled_model import BUNDLED
from mvlm.compile.tuning.apply import ApplicableLogs, find_applicable_logs
from mvlm.compile.tuning_log import LogKey
from mvlm.compile.tuning_log.paths import PROVENANCE_FILE, RECORDS_FILE
from tests.cli.command_line import mvlm

SHIPPED = Path(__file__).parents[2] / "tuning_logs" / "host-znver4"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return shutil.copytree(SHIPPED, tmp_path / "logs" / SHIPPED.name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trials", "0"], "--trials: expected 1 or more, found 0"),
        (["--trials", "-5"], "--trials"),
        (["--timeout", "0"], "--timeout"),
        (["--target", "snapdragon-889"], "unknown target"),
        (["--target", "snapdragon-888-cpu"], "is not this machine"),
        (["--rpc", "127.0.0.1:9190"], "--rpc and --device-key belong together"),
        (["--device-key", "phone"], "--rpc and --device-key belong together"),
        (["--rpc", "nowhere", "--device-key", "phone"], "expected HOST:PORT"),
        (["--only", "no-such-kernel"], "there is nothing to tune"),
        (["--quant", "q3"], "q3"),
    ],
)
def test_what_tune_refuses(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = mvlm("tune", BUNDLED, "--logs", tmp_path / "logs", *arguments)
    assert result.exit_code == 2, result.stderr
    assert words in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "logs").exists()


def test_a_tracker_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["--rpc", f"127.0.0.1:{port}", "--device-key", "phone", "--only", "quantize_rms"]
    result = mvlm("tune", BUNDLED, "--logs", tmp_path, *arguments)
    assert result.exit_code == 1
    assert f"no tracker answers at 127.0.0.1:{port}" in result.stderr
    assert "mvlm device tracker" in result.stderr and "Traceback" not in result.stderr
    listed = mvlm("device", "list", "--tracker", f"127.0.0.1:{port}", "--json")
    assert listed.exit_code == 1 and "no tracker answers" in listed.json["error"]["problem"]


def test_listing(log: Path) -> None:
    shown = mvlm("logs", "list", "--logs", log.parent)
    assert shown.exit_code == 0 and "host-znver4" in shown.stdout
    (entry,) = mvlm("logs", "list", "--logs", log.parent, "--json").json["logs"]
    assert entry["target"] == "host" and entry["trials"] >= 1000 and entry["tuned"] > 0
    (log / PROVENANCE_FILE).write_text("{")
    broken = mvlm("logs", "list", "--logs", log.parent, "--json").json
    assert not broken["logs"] and "not valid JSON" in broken["unreadable"][0]["problem"]
    assert mvlm("logs", "list", "--logs", log / "nowhere").stdout.startswith("no logs")


def test_showing(log: Path, tmp_path: Path) -> None:
    shown = mvlm("logs", "show", log, "--task", "linear_4096", "--plot", tmp_path / "c.svg")
    assert shown.exit_code == 0, shown.stderr
    assert "linear_4096x1024" in shown.stdout and "cost model xgboost" in shown.stdout
    assert (tmp_path / "c.svg").read_bytes().startswith(b"<?xml")
    document = mvlm("logs", "show", log, "--json").json
    winners = [kernel for kernel in document["kernels"] if kernel["record"] is not None]
    assert winners and all(kernel["gain"] > kernel["noise"] for kernel in winners)
    for kernel in winners:
        assert kernel["best_so_far"] == sorted(kernel["best_so_far"], reverse=True)
    missing = mvlm("logs", "show", tmp_path / "nowhere")
    assert missing.exit_code == 1 and "is not a tuning log" in missing.stderr


def test_merging_and_pruning(log: Path, tmp_path: Path) -> None:
    before = len((log / RECORDS_FILE).read_text().splitlines())
    merged = mvlm("logs", "merge", log, SHIPPED, "-o", tmp_path / "merged", "--json")
    assert merged.json["measurements"] == before
    pruned = mvlm("logs", "prune", tmp_path / "merged", "--keep", "2", "--json").json
    assert pruned["measurements"] < before
    assert pruned["measurements"] + pruned["removed"] == before
    left = mvlm("logs", "show", tmp_path / "merged", "--json").json
    whole = mvlm("logs", "show", log, "--json").json
    assert [k["gain"] for k in left["kernels"]] == [k["gain"] for k in whole["kernels"]]
    refused = mvlm("logs", "merge", log, "-o", tmp_path)
    assert refused.exit_code == 2 and "in the way" in refused.stderr
    document = json.loads((log / PROVENANCE_FILE).read_text())
    document["target"]["tvm"]["mcpu"] = "haswell"
    (log / PROVENANCE_FILE).write_text(json.dumps(document))
    refused = mvlm("logs", "merge", log, SHIPPED, "-o", tmp_path / "other")
    assert refused.exit_code == 2 and "they differ in CPU" in refused.stderr


def test_shipped_logs_of_other_devices_are_passed_over_silently(tmp_path: Path) -> None:
    key = LogKey.for_target("host", {"kind": "llvm", "mcpu": "another"}, 2)
    assert find_applicable_logs(key, [SHIPPED.parent]) == ApplicableLogs()
    copy = shutil.copytree(SHIPPED, tmp_path / "mine")
    assert "another CPU" in find_applicable_logs(key, [copy]).warnings[0]


def test_the_shipped_logs_are_of_devices_that_were_measured() -> None:
    """No emulator's, none damaged, each with where it comes from."""
    logs = mvlm("logs", "list", "--logs", SHIPPED.parent, "--json").json["logs"]
    assert logs
    for entry in logs:
        assert not entry["is_emulated"] and entry["damaged_lines"] == 0
        assert entry["device"] and entry["trials"] > 0 and entry["date"]
