"""What a store's files promise, of a folder and of what fsspec reaches."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvlm.compile.jobs.errors import PermanentStoreError, StoreError
from mvlm.compile.jobs.store.files import Files, check_name
from mvlm.compile.jobs.store.local_files import LocalFiles
from mvlm.compile.jobs.store.remote_files import RemoteFiles
from mvlm.compile.jobs.store.store import open_files
from mvlm.runtime.errors import UsageError


@pytest.fixture(params=["folder", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    if request.param == "folder":
        yield open_files(str(tmp_path / "store"))
        return
    prefix = f"store-{uuid.uuid4().hex}"
    yield open_files(f"memory://{prefix}")
    with contextlib.suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm(f"/{prefix}", recursive=True)


# --- both ---------------------------------------------------------------------------------------


def test_files_read_and_write(files: Files) -> None:
    assert files.read("a/b.json", 10) is None
    assert files.size("a/b.json") is None
    files.write("a/b.json", b"one")
    files.write("a/b.json", b"three")
    assert files.read("a/b.json", 10) == b"three"
    assert files.read("a/b.json", 2) == b"thr"  # one byte more tells that it is too large
    assert files.size("a/b.json") == 5
    files.write("a/empty", b"")
    assert files.read("a/empty", 10) == b""
    assert files.names("a") == ["b.json", "empty"]
    files.remove("a/b.json")
    files.remove("a/b.json")
    assert files.read("a/b.json", 10) is None
    assert files.names("nowhere") == []


def test_files_exclusive_creation(files: Files) -> None:
    assert files.create("leases/a", b"first")
    assert not files.create("leases/a", b"second")
    assert files.read("leases/a", 10) == b"first"
    files.remove("leases/a")
    assert files.create("leases/a", b"third")


@pytest.mark.parametrize("linked", [True, False])
def test_files_put_and_get(files: Files, tmp_path: Path, linked: bool) -> None:
    data = os.urandom(3_000_000)
    with files.scratch() as folder:
        (folder / "source").write_bytes(data)
        files.put("blobs/x", folder / "source")
    assert not folder.exists()
    assert files.get("blobs/x", tmp_path / "copy", len(data), linked=linked)
    assert (tmp_path / "copy").read_bytes() == data
    assert not files.get("blobs/y", tmp_path / "other", 10, linked=linked)
    assert not (tmp_path / "other").exists()
    files.put("blobs/x", tmp_path / "copy")
    assert files.get("blobs/x", tmp_path / "bounded", 99, linked=False)
    assert (tmp_path / "bounded").stat().st_size == 100


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".hidden", "a\\b", "a\0", "ü", "a b"],
)
def test_file_names_outside_the_store_are_refused(files: Files, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        files.read(name, 10)
    with pytest.raises(ValueError, match="no name"):
        files.write(name, b"")


@given(st.text(max_size=30))
def test_no_file_name_leads_outside(name: str) -> None:
    try:
        checked = check_name(name)
    except ValueError:
        return
    assert (Path("/store") / checked).resolve().is_relative_to("/store")


def test_object_stores_get_no_folders() -> None:
    """To make one could make a bucket."""
    system = mock.Mock()
    RemoteFiles("s3://bucket/x", system, "bucket/x").write("a/b", b"1")
    RemoteFiles("sftp://host/x", system, "x").write("a/b", b"1")
    system.makedirs.assert_called_once_with("x/a", exist_ok=True)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [(PermissionError("no"), False), (TimeoutError("late"), True), (RuntimeError("odd"), True)],
)
def test_any_file_system_error_is_a_store_error(error: Exception, retryable: bool) -> None:
    system = mock.Mock(info=mock.Mock(side_effect=error), pipe_file=mock.Mock(side_effect=error))
    files = RemoteFiles("s3://bucket/x", system, "bucket/x")
    for act in (lambda: files.size("a"), lambda: files.write("a", b""), lambda: files.read("a", 1)):
        with pytest.raises(StoreError, match=r"cannot use s3://bucket/x/a") as caught:
            act()
        assert caught.value.retryable is retryable


# --- folders ------------------------------------------------------------------------------------


def test_concurrent_creation_has_one_winner(tmp_path: Path) -> None:
    files, won = LocalFiles(tmp_path), []
    barrier = threading.Barrier(16)

    def create(number: int) -> None:
        barrier.wait()
        if files.create("leases/a", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert files.read("leases/a", 10) == str(won[0]).encode()


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "store")
    files.write("a/real", b"x")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "store/a/link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "store/a/pipe")
    for name in ("a/link", "a/pipe", "a"):
        with pytest.raises(StoreError):
            files.read(name, 10)
        with pytest.raises(StoreError):
            files.get(name, tmp_path / "out", 10, linked=True)
        assert files.size(name) is None
    assert not (tmp_path / "out").exists()


def test_blobs_are_not_written_through_a_link(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    with files.scratch() as folder:
        (folder / "source").write_bytes(b"x")
        files.put("blobs/x", folder / "source")
    files.get("blobs/x", tmp_path / "linked", 1, linked=True)
    assert (tmp_path / "linked").stat().st_mode & 0o222 == 0
    files.get("blobs/x", tmp_path / "copied", 1, linked=False)
    (tmp_path / "copied").write_bytes(b"mine")
    assert files.read("blobs/x", 10) == b"x"


def test_gc_removes_scratch_of_killed_processes(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path;"
        "from mvlm.compile.jobs.store.local_files import LocalFiles;"
        "scratch = LocalFiles(Path(sys.argv[1])).scratch();"
        "scratch.__enter__(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True)
    files = LocalFiles(tmp_path)
    assert len(files.names("tmp")) == 1
    with files.scratch() as mine:
        files.gc()
        assert files.names("tmp") == [mine.name]


def test_full_disk_is_a_permanent_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    files.write("a", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PermanentStoreError, match=r"no space left.*Free some space"):
        files.write("a", b"new")
    with pytest.raises(PermanentStoreError, match="no space left"):
        files.create("b", b"new")
    assert files.read("a", 10) == b"old"
    assert (files.names("tmp"), files.size("b")) == ([], None)


@pytest.mark.parametrize(("code", "retryable"), [(errno.EIO, True), (errno.EACCES, False)])
def test_which_errors_are_retryable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, retryable: bool
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError) as caught:
        LocalFiles(tmp_path).write("a", b"")
    assert caught.value.retryable is retryable


# --- URLs ---------------------------------------------------------------------------------------


def test_store_urls_of_folders(tmp_path: Path) -> None:
    spaced = tmp_path / "a b"
    for url in (str(spaced), spaced.as_uri(), f"file://{spaced}"):
        assert open_files(url).folder == spaced
    assert open_files(open_files(str(spaced)).url).folder == spaced


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nope://x", "Protocol not known"),
        ("file://elsewhere/x", "expected file:///FOLDER"),
        ("file://", "expected file:///FOLDER"),
    ],
)
def test_unreachable_store_urls(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_files(url)
