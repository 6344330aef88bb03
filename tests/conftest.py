"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.threads  # before torch and TVM, which read the environment when imported
import tests.tvmscript
from tests.artifacts import ArtifactCache

# A shell starts background jobs with Ctrl-C ignored, and nohup ignores SIGHUP, which our child
# processes would inherit; the tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

tests.tvmscript.look_up_quickly()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all worker processes of this session share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if tests.threads.IS_WORKER else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def artifact_cache(shared_folder: Path) -> ArtifactCache:
    """Compiled artifacts of small random models, each compiled once a session."""
    return ArtifactCache(shared_folder / "artifact_cache")


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
