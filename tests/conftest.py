"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.artifacts import ArtifactCache

# torch's threads and TVM's would fight over the cores; both read this when they start.
os.environ.setdefault("OMP_NUM_THREADS", "2")

# A shell starts background jobs with Ctrl-C ignored, and nohup ignores SIGHUP, which our child
# processes would inherit; the tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def artifact_cache(tmp_path_factory: pytest.TempPathFactory) -> ArtifactCache:
    """Compiled artifacts of small random models, each compiled once per session."""
    return ArtifactCache(tmp_path_factory.mktemp("artifact_cache"))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, in the place of the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MVLM_CACHE", str(folder))
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB: less than the runtime's library needs."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", os.fspath(place)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", os.fspath(place)], check=True)
