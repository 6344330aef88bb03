"""A staged folder appears whole or not at all, whatever interrupts its writing."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mvlm.runtime.artifact import staging
from mvlm.runtime.artifact.layout import MANIFEST
from mvlm.runtime.artifact.staging import atomic_directory
from mvlm.runtime.errors import ArtifactError, UsageError


def write(folder: Path, text: str) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "model.so").write_text(text)
    (folder / MANIFEST).write_text(text)


def existing(destination: Path, text: str = "old") -> Path:
    destination.mkdir(parents=True)
    write(destination, text)
    return destination


def content(destination: Path) -> set[str]:
    return {(destination / name).read_text() for name in (MANIFEST, "lib/model.so")}


def leftovers(destination: Path) -> list[str]:
    return [path.name for path in destination.parent.iterdir() if path != destination]


# --- what is published --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "a b", "model[1]*", ".hidden", "ä\N{SNOWMAN}"])
def test_a_folder_appears_atomically(tmp_path: Path, name: str) -> None:
    destination = tmp_path / "deep" / "er" / name
    with atomic_directory(destination) as folder:
        assert not list(folder.iterdir())
        write(folder, "new")
        assert not destination.exists()
    assert content(destination) == {"new"}
    assert not leftovers(destination)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with atomic_directory(tmp_path / "a") as folder:
        write(folder, "new")
    assert content(tmp_path / "a") == {"new"}


def test_an_artifact_is_replaced_and_a_reader_keeps_the_old_one(tmp_path: Path) -> None:
    destination = existing(tmp_path / "a")
    (destination / "extra").write_text("old")
    with (destination / MANIFEST).open() as reader:
        with atomic_directory(destination) as folder:
            write(folder, "new")
            assert content(destination) == {"old"}
        assert reader.read() == "old"
    assert content(destination) == {"new"}
    assert not (destination / "extra").exists()
    assert not leftovers(destination)


def test_an_artifact_is_replaced_where_folders_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_exchange", lambda left, right: False)
    destination = existing(tmp_path / "a")
    with atomic_directory(destination) as folder:
        write(folder, "new")
    assert content(destination) == {"new"}
    assert not leftovers(destination)


def test_failing_to_replace_brings_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_exchange", lambda left, right: False)
    destination = existing(tmp_path / "a")
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name == "content":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt), atomic_directory(destination) as folder:
        write(folder, "new")
    assert content(destination) == {"old"}


def test_a_relative_destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with atomic_directory(Path("a")) as folder:
        write(folder, "new")
    assert content(tmp_path / "a") == {"new"}


# --- what is in the way -------------------------------------------------------------------------


def a_file(path: Path) -> None:
    path.write_text("mine")


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("mine")


def a_link_to_an_artifact(path: Path) -> None:
    path.symlink_to(existing(path.with_name("elsewhere")))


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [a_file, a_folder, a_link_to_an_artifact, a_dangling_link])
def test_a_destination_with_other_files_is_refused(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    destination = tmp_path / "a"
    make(destination)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    refusal = pytest.raises(UsageError, match=r"in the way.*expected nothing.*-o")
    with refusal, atomic_directory(destination):
        pytest.fail("must not get here")
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("parent", ["a file", "/proc", "/dev/null"])
def test_an_unusable_parent(tmp_path: Path, parent: str) -> None:
    (tmp_path / "a file").write_text("")
    refusal = pytest.raises(ArtifactError, match=r"cannot write .*-o; nothing was left behind")
    with refusal, atomic_directory(tmp_path / parent / "a"):
        pytest.fail("must not get here")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ArtifactError, match="Permission denied"), atomic_directory(tmp_path / "a"):
        pytest.fail("must not get here")


def test_an_error_about_a_file_elsewhere_is_not_about_the_destination(tmp_path: Path) -> None:
    missing = tmp_path / "checkpoint" / "gone"
    with pytest.raises(FileNotFoundError, match="gone"), atomic_directory(tmp_path / "out" / "a"):
        missing.read_bytes()
    assert not list((tmp_path / "out").iterdir())


# --- what interrupts ----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("there", [True, False])
def test_an_error_leaves_everything_as_it_was(
    tmp_path: Path, error: type[BaseException], there: bool
) -> None:
    destination = tmp_path / "a"
    if there:
        existing(destination)
    with pytest.raises(error), atomic_directory(destination) as folder:
        write(folder, "new")
        raise error
    assert destination.exists() == there
    assert not there or content(destination) == {"old"}
    assert not leftovers(destination)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_called_that(tmp_path: Path, code: int) -> None:
    refusal = pytest.raises(ArtifactError, match=r"no space left.*Free some space")
    with refusal, atomic_directory(tmp_path / "a") as folder:
        write(folder, "new")
        raise OSError(code, os.strerror(code))
    assert not list(tmp_path.iterdir())


def test_a_failing_flush_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk can show as late as that."""

    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    destination = existing(tmp_path / "a")
    monkeypatch.setattr(os, "fsync", fail)
    with (
        pytest.raises(ArtifactError, match="no space left"),
        atomic_directory(destination) as folder,
    ):
        write(folder, "new")
    assert content(destination) == {"old"}
    assert not leftovers(destination)


CHILD = """
import os, sys, time
from pathlib import Path
from mvlm.runtime.artifact import staging
moment, destination = sys.argv[1], Path(sys.argv[2])

def wait():
    print("here", flush=True)
    time.sleep(60)

def before(name):
    whole = getattr(staging, name)
    def paused(*arguments):
        wait()
        return whole(*arguments)
    setattr(staging, name, paused)

if moment == "claimed":
    flock = staging.fcntl.flock
    staging.fcntl.flock = lambda *arguments: wait()
if moment in ("_flush", "_publish", "_sync"):
    before(moment)
with staging.atomic_directory(destination) as folder:
    if moment == "empty":
        wait()
    (folder / "lib").mkdir()
    (folder / "manifest.json").write_text("new")
    if moment == "half":
        wait()
    (folder / "lib" / "model.so").write_text("new")
if moment == "done":
    wait()
"""
MOMENTS = ["claimed", "empty", "half", "_flush", "_publish", "done"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_process_leaves_the_old_folder(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    destination = existing(tmp_path / "a")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, moment, destination],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"here\n"
    child.send_signal(number)
    assert child.wait(10) != 0
    child.stdout.close()
    assert content(destination) == {"new" if moment == "done" else "old"}
    if number == signal.SIGINT and moment != "claimed":
        assert not leftovers(destination)
    # The next one sweeps up what was left, and is not disturbed by it.
    with atomic_directory(destination) as folder:
        assert len(leftovers(destination)) == 1
        write(folder, "newer")
    assert content(destination) == {"newer"}
    assert not leftovers(destination)


def test_staging_folders_of_living_processes_are_kept(tmp_path: Path) -> None:
    destination = tmp_path / "a"
    with atomic_directory(destination) as first:
        write(first, "first")
        with atomic_directory(destination) as second:
            write(second, "second")
        assert content(destination) == {"second"}
        assert content(first) == {"first"}
    assert content(destination) == {"first"}
    assert not leftovers(destination)


@pytest.mark.parametrize("another_sweeps", [False, True])
def test_a_staging_folder_removed_while_its_lock_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_sweeps: bool
) -> None:
    """The lock that comes then is a dead file's; a second sweeper may hold the one in its place."""
    destination, waits = tmp_path / "a", []

    def swept_meanwhile(lock: int, how: int) -> None:
        if not waits:
            waits.append(leftovers(destination))
            (file,) = destination.parent.glob(".a.staging-*/.lock")
            file.unlink()
            if another_sweeps:
                file.touch()
            else:
                file.parent.rmdir()
        flock(lock, how)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", swept_meanwhile)
    with atomic_directory(destination) as folder:
        assert folder.parent.name not in waits[0]
        write(folder, "new")
    assert content(destination) == {"new"}


def test_a_sweeper_that_waited_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is the file of a folder that another made its own since."""
    stale = tmp_path / ".a.staging-x"
    stale.mkdir()

    def taken_meanwhile(lock: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        (stale / ".lock").unlink()
        (stale / ".lock").touch()
        flock(lock, how)

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", taken_meanwhile)
    with atomic_directory(tmp_path / "a") as folder:
        write(folder, "new")
    assert stale.is_dir()


def test_other_folders_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / ".ab.staging-x").mkdir()
    (tmp_path / "a.staging-x").mkdir()
    with atomic_directory(tmp_path / "a*") as folder:
        write(folder, "new")
    with atomic_directory(tmp_path / "a") as folder:
        write(folder, "new")
    assert sorted(leftovers(tmp_path / "a")) == [".ab.staging-x", "a*", "a.staging-x"]


def test_concurrent_writers_leave_one_whole_folder(tmp_path: Path) -> None:
    """And a concurrent reader sees one whole folder after the other, never a mixture."""
    destination, failures, running = existing(tmp_path / "a", "0"), [], True

    def writer(text: str) -> None:
        try:
            for _ in range(15):
                with atomic_directory(destination) as folder:
                    write(folder, text)
        except Exception as error:
            failures.append(error)

    def reader() -> None:
        while running:
            if not (destination / MANIFEST).is_file():
                failures.append(AssertionError("the place was empty"))
            time.sleep(0)

    writers = [threading.Thread(target=writer, args=(str(number),)) for number in range(4)]
    watcher = threading.Thread(target=reader)
    for thread in (watcher, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    running = False
    watcher.join()
    assert not failures
    assert len(content(destination)) == 1
    assert not leftovers(destination)


def small_disk(tmp_path: Path) -> Path:
    """A file system of 64 KiB, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", os.fspath(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a small disk")
    return place


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    place = small_disk(tmp_path)
    try:
        destination = existing(place / "a")
        refusal = pytest.raises(ArtifactError, match="no space left")
        with refusal, atomic_directory(destination) as folder:
            (folder / "weights.bin").write_bytes(bytes(1 << 20))
        assert content(destination) == {"old"}
        assert not leftovers(destination)
        with atomic_directory(destination) as folder:
            write(folder, "new")
        assert content(destination) == {"new"}
    finally:
        subprocess.run(["umount", os.fspath(place)], check=True)
