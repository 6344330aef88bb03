"""Reports from devices are from outside: what is wrong in one is named, and no table is spoilt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mvlm.bench.device_report import SPEEDS, read_device_report, table
from mvlm.runtime.errors import MvlmError

Change = Callable[[dict[str, Any]], None]


def document() -> dict[str, Any]:
    state = {
        "cores": [{"core": 0, "governor": "schedutil"}],
        "temperatures": [
            {"sensor": "skin", "celsius": 31},
            {"sensor": "cpu", "celsius": 45.5},
        ],
    }
    return {
        "schema": 2,
        "device": {"cpu": "SM8350", "targets": [{"name": "snapdragon-888-cpu", "by": "cores"}]},
        "chat": {"text": "A red\n| circle."},
        "before": state,
        "after": {"cores": [], "temperatures": []},
        "speeds": {
            **{name: {"median": 21.5, "min": 20.0, "max": 22.0} for name in SPEEDS},
            "threads": 4,
            "artifact": {
                "model": "MobileVLM-1.7B",
                "quantization": {"language": "q4a8"},
                "digest": "0123456789abcdef",
            },
            "bandwidth_share": 0.35,
            "read_bandwidth_bytes_s": 26e9,
        },
    }


def written(folder: Path, change: Change = lambda values: None) -> Path:
    values = document()
    change(values)
    path = folder / "report.json"
    path.write_text(json.dumps(values))
    return path


def test_device_reports_of_version_1_are_read(tmp_path: Path) -> None:
    now = read_device_report(written(tmp_path))
    assert read_device_report(written(tmp_path, set_to("schema", value=1))) == now


def test_device_report_table(tmp_path: Path) -> None:
    text = table([read_device_report(written(tmp_path))])
    rows = dict(line.strip("| ").split(" | ") for line in text.splitlines()[2:])
    assert rows["target"] == "snapdragon-888-cpu"
    assert rows["hottest sensor, before and after"] == "46 °C, not read"
    assert rows["decode, tok/s"] == "21.5"
    assert rows["memory read, GB/s"] == "26.0" and rows["share used by decode"] == "35 %"
    assert rows["answer"] == "A red   circle."


def set_to(*keys: str, value: Any) -> Change:
    def change(values: dict[str, Any]) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            set_to("schema", value=3),
            "another version of mvlm: expected schema 1 or 2, found schema 3",
        ),
        (set_to("device", value=None), "key 'device' is wrong"),
        (set_to("device", "cpu", value=7), "device: key 'cpu' is wrong: expected str"),
        (set_to("device", "targets", value=["x"]), "key 'targets'"),
        (set_to("speeds", "threads", value="4"), "speeds: key 'threads'.*expected int"),
        (set_to("speeds", "decode_tok_s", value={}), "decode_tok_s: key 'median'.*no such key"),
        (set_to("speeds", "decode_tok_s", "median", value=-1), "'median'.*0 or more, found -1"),
        (set_to("before", "temperatures", value=[{"celsius": "hot"}]), r"temperatures\[0\]"),
        (set_to("chat", "text", value=None), "chat: key 'text'"),
    ],
)
def test_malformed_device_reports(tmp_path: Path, change: Change, words: str) -> None:
    with pytest.raises(MvlmError, match=words) as caught:
        read_device_report(written(tmp_path, change))
    assert "device-check" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"schema": NaN}', "[" * 100_000])
def test_files_that_are_no_device_reports(tmp_path: Path, content: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(MvlmError, match=r"report\.json"):
        read_device_report(path)


def test_names_cannot_break_the_device_report_table(tmp_path: Path) -> None:
    name = "a|b\n| c | <script>\x1b[31m`" + "x" * 1000
    text = table([read_device_report(written(tmp_path, set_to("device", "cpu", value=name)))])
    head = text.splitlines()[0]
    assert head.count("|") == 3 and len(head) < 200
    assert not set("<>`\x1b") & set(head)
