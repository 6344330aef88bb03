"""A store, and workers without a compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvlm.compile.jobs.store import Store, open_store
from tests.compile.jobs.fakes import use_fake_workers


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def faked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Workers without a compiler; returns the folder of their faults."""
    folder = tmp_path / "faults"
    folder.mkdir()
    use_fake_workers(monkeypatch, folder)
    return folder
