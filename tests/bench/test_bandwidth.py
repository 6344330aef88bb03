from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mvlm.bench import bandwidth
from mvlm.bench.bandwidth import measure, measure_in_child
from mvlm.runtime.errors import MvlmError


def test_bandwidth_counts_read_bytes() -> None:
    """The passes' times, got back from their rates, fit into the time that all took."""
    size = 32 << 20
    begin = time.perf_counter()
    rates = measure(threads=1, size=size, passes=4)
    elapsed = time.perf_counter() - begin
    assert len(rates) == 4
    assert 0 < sum(size / rate for rate in rates) < elapsed


def test_bandwidth_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[int] = []
    monkeypatch.setattr(bandwidth, "_read", lambda share: shares.append(share.nbytes))
    measure(threads=3, size=3 << 20, passes=1)
    assert shares == [1 << 20] * 6  # one pass does not count


def test_bandwidth_child_runs_on_the_given_cores() -> None:
    (core, *_) = sorted(os.sched_getaffinity(0))
    rates = measure_in_child(1, {core})
    assert len(rates) > 3 and min(rates) > 1e8


def test_bandwidth_child_failure_is_an_error() -> None:
    with pytest.raises(MvlmError, match="read bandwidth cannot be measured"):
        measure_in_child(1, {123_456})


def test_bandwidth_reads_the_last_level_cache_size(tmp_path: Path) -> None:
    for index, size in enumerate(("32K", "512K", "32M", "odd")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert bandwidth._last_level_cache_bytes(tmp_path) == 32 << 20
    assert bandwidth._last_level_cache_bytes(tmp_path / "nowhere") == 0
