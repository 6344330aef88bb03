"""The tables, and the speeds in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvlm.bench.quality.bundled_model import BundledFigures, Candidate
from mvlm.bench.quality.ggml import GgmlRow
from mvlm.bench.quality.judgement import Judgement
from mvlm.bench.quality.ours import OurRow
from mvlm.bench.quality.results import StoredSize
from mvlm.bench.quality.row import RowFigures
from mvlm.bench.quality.speeds import Speed, read_speeds
from mvlm.bench.quality.table import bundled_table, quality_table
from mvlm.runtime.errors import UsageError


def figures(bits: float) -> RowFigures:
    size = StoredSize(bits, bits + 1, 86_600_000, "some", "others")
    return RowFigures(size, Judgement(23.456, 0.12346, 0.87654))


def test_rows_are_ordered_by_their_bits_and_the_default_is_bold() -> None:
    rows = [
        (OurRow("q3a8", calibrated=True), figures(3.25)),
        (OurRow("q4a8"), figures(4.25)),
        (GgmlRow("llama.cpp", "Q4_0"), figures(4.5)),
    ]
    speeds = {"mvlm q4a8": Speed(1.525, None), "llama.cpp Q4_0": Speed(1.0, 1.0)}
    lines = quality_table(rows, speeds, "mvlm q4a8").splitlines()
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| llama.cpp Q4_0 |  | 4.50 | some | others | 5.50 | 87 MB |")
    assert lines[3] == (
        "| **`q4a8`** |  | 4.25 | some | others | 5.25 | 87 MB | 23.46 | 0.1235 | 87.7 % "
        "| 1.52x | – |"  # noqa: RUF001
    )
    assert lines[4].startswith("| `q3a8` | yes |")


def test_the_bundled_models_rows_name_no_rounding_of_floats() -> None:
    rows = [
        (
            Candidate("q0f32", "nearest", "float32"),
            BundledFigures(32, 15_850_000, 0.951, 1.0494, 0),
        ),
        (Candidate("q4a8", "nearest", "int8"), BundledFigures(4.25, 4_450_000, 0.95, 1.05, 0.1)),
    ]
    lines = bundled_table(rows).splitlines()
    assert lines[2:] == [
        "| **`q0f32`** |  | float32 | 32 | 15.85 MB | 95.1 % | 1.0494 | 0.00e+00 |",
        "| `q4a8` | nearest | int8 | 4.25 | 4.45 MB | 95.0 % | 1.0500 | 1.00e-01 |",
    ]


def scenario(name: str, **medians: float | None) -> dict[str, object]:
    return {
        "name": name,
        "systems": {
            tool: {"spread": None if median is None else {"median": median}}
            for tool, median in medians.items()
        },
    }


def write_report(path: Path, *scenarios: dict[str, object]) -> Path:
    path.write_text(json.dumps({"scenarios": scenarios}))
    return path


def test_speeds_of_the_peers_report_are_relative_to_q4_0(tmp_path: Path) -> None:
    decode = scenario("decode", **{"mvlm": 45.0, "llama.cpp": 30.0, "ik_llama.cpp": None})
    prefill = scenario("prefill-256", **{"mvlm": 250.0, "llama.cpp": 100.0})
    other = scenario("vision", mvlm=1.0)
    found = read_speeds(write_report(tmp_path / "report.json", decode, prefill, other))
    assert found == {"mvlm q4a8": Speed(1.5, 2.5), "llama.cpp Q4_0": Speed(1.0, 1.0)}


def test_each_report_of_several_has_its_own_base(tmp_path: Path) -> None:
    reports = [
        {"scenarios": [scenario("decode", **{"llama.cpp Q4_0": base, name: 30.0})]}
        for base, name in ((30.0, "mvlm q3a8"), (20.0, "llama.cpp Q4_K_M"))
    ]
    (tmp_path / "speeds.json").write_text(json.dumps(reports))
    found = read_speeds(tmp_path / "speeds.json")
    assert found["mvlm q3a8"] == Speed(1.0, None)
    assert found["llama.cpp Q4_K_M"] == Speed(1.5, None)


@pytest.mark.parametrize("content", ["{", "[1]", '{"scenarios": [{}]}', '{"model": 1}'])
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UsageError, match=r"no report of speeds: expected what `mvlm bench"):
        read_speeds(tmp_path / "report.json")


def test_a_report_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_speeds(tmp_path / "report.json")
