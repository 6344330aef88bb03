"""Weights are mapped privately, and cached in huge pages where the system has them."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import numpy as np
import pytest

from mvlm.runtime.artifact import weights
from mvlm.runtime.artifact.weights import (
    HUGE_PAGE_BYTES,
    drop_from_cache,
    drop_small_pages,
    map_file,
    read_into_cache,
)

SIZE = 4 * HUGE_PAGE_BYTES + 12_345


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(np.random.default_rng(0).bytes(SIZE))
    return path


def write_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    drop_from_cache(handle)
    os.close(handle)


def huge_bytes(path: Path) -> int:
    """The bytes of this process's mappings of a file that are in huge pages."""
    mappings = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    of_file = [each for each in mappings if each.split("\n", 1)[0].endswith(os.fspath(path))]
    assert of_file
    return sum(1024 * int(re.findall(r"FilePmdMapped: +(\d+) kB", each)[0]) for each in of_file)


def test_writes_to_a_mapping_stay_in_the_process(file: Path) -> None:
    content = file.read_bytes()
    mapped = map_file(file)
    assert mapped.dtype == np.uint8 and mapped.tobytes() == content
    mapped[:] = 0
    assert file.read_bytes() == content


def test_weights_are_cached_in_huge_pages(file: Path) -> None:
    """Dropped once written, read by the check, mapped by the loader."""
    write_to_disk(file)
    read_into_cache(file)
    mapped = map_file(file)
    assert int(mapped[::4096].sum()) > 0  # every page is touched
    if not supports_huge_pages(file.with_name("probe")):
        pytest.skip("the system or its file system has no huge pages for files")
    assert huge_bytes(file) == 4 * HUGE_PAGE_BYTES


def supports_huge_pages(probe: Path) -> bool:
    """Map a fresh file by the system's calls alone, and look."""
    with probe.open("w+b") as file:
        file.write(bytes(2 * HUGE_PAGE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            mapped.madvise(mmap.MADV_HUGEPAGE)
            assert not any(mapped[::4096])
            return huge_bytes(probe) > 0


def test_files_in_small_pages_are_read_again(file: Path) -> None:
    """Another program has written or read them; they are dropped if that helps the first one."""
    other = file.with_name("other.bin")
    other.write_bytes(file.read_bytes())
    for path in (file, other):
        write_to_disk(path)
        path.read_bytes()
    drop_small_pages([file, other])
    read_into_cache(other)
    if not supports_huge_pages(file.with_name("probe")):
        pytest.skip("the system or its file system has no huge pages for files")
    for path in (file, other):
        mapped = map_file(path)
        assert int(mapped[::4096].sum()) > 0
        assert huge_bytes(path) == 4 * HUGE_PAGE_BYTES


def test_nothing_is_dropped_where_there_are_no_huge_pages(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = file.with_name("enabled")
    monkeypatch.setattr(weights, "_HUGE_PAGES", setting)
    monkeypatch.setattr(weights, "drop_from_cache", lambda file: pytest.fail("dropped"))
    drop_small_pages([file])  # the system has no such setting
    setting.write_text("always madvise [never]\n")
    drop_small_pages([file])


@pytest.mark.parametrize("size", [0, 1, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, SIZE])
def test_files_of_any_size_are_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * size)
    read_into_cache(path)
    write_to_disk(path)
    read_into_cache(path)
    assert path.read_bytes() == b"a" * size


def test_systems_that_do_not_know_the_advice(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_MADV_POPULATE_READ", 9_999)
    monkeypatch.setattr(weights.mmap, "MADV_HUGEPAGE", 9_998)
    drop_small_pages([file])
    read_into_cache(file)
    assert map_file(file).tobytes() == file.read_bytes()
