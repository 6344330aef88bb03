"""The matrix that is timed, and its table."""

from __future__ import annotations

from pathlib import Path

from mvlm.bench.studies.job_matrix import DOCUMENT, Timing, table, write_matrix
from mvlm.compile.jobs.matrix import read_matrix
from mvlm.compile.jobs.plan import plan_matrix


def test_job_matrix_is_24_jobs_that_share_12_packings(tmp_path: Path) -> None:
    plan = plan_matrix(read_matrix(write_matrix(tmp_path)), tmp_path / "logs")
    assert len(plan.artifacts) == 24
    assert len(plan.steps) == 36


def test_job_matrix_table() -> None:
    lines = table([Timing("1 worker", 99.95, 24, 0, 12, 500_000_000)]).splitlines()
    assert lines[-1] == "| 1 worker | 100.0 s | 24 | 0 | 12 | 0.50 GB |"
    page = (Path(__file__).parents[3] / DOCUMENT).read_text(encoding="utf-8")
    assert "<!-- job-matrix -->" in page and "<!-- /job-matrix -->" in page
