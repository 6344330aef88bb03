"""Leases: one owner at a time, and no dead process keeps one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.compile.jobs.process import this_process
from mvlm.compile.jobs.store.leases import Leases
from mvlm.compile.jobs.store.local_files import LocalFiles

KEY, OTHER = "a" * 64, "b" * 64


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path)


def elsewhere(files: LocalFiles, number: int = 0, **changes: object) -> None:
    """Write a lease of another machine, of which nobody can tell whether it is alive."""
    owner = this_process().to_json() | {"host": "far", "pid_namespace": "far away"} | changes
    content = json.dumps({"run": "another", "owner": owner, "renewals": 1})
    files.write(f"leases/{KEY}.{number}.json", content.encode())


def test_a_lease_has_one_owner_at_a_time(files: LocalFiles) -> None:
    first, second = Leases(files, "first"), Leases(files, "second")
    assert first.acquire(KEY)
    assert not second.acquire(KEY)
    assert second.owner(KEY).startswith("first on ")
    assert second.acquire(OTHER)
    first.release(KEY)
    assert second.acquire(KEY)
    second.release_all()
    assert files.names("leases") == []


def test_a_renewed_lease_is_never_taken_over(files: LocalFiles) -> None:
    clock = Clock()
    first, second = Leases(files, "first"), Leases(files, "second", expiry=10, clock=clock)
    assert first.acquire(KEY)
    for _ in range(20):
        assert not second.acquire(KEY)
        clock.now += 9
        first.renew()


def test_an_expired_lease_is_taken_over(files: LocalFiles) -> None:
    """By the clock of whoever waits: how old a lease says it is does not count."""
    clock = Clock()
    elsewhere(files)
    leases = Leases(files, "mine", expiry=10, clock=clock)
    assert not leases.acquire(KEY)
    clock.now = 9
    assert not leases.acquire(KEY)
    clock.now = 11
    assert leases.acquire(KEY)
    assert files.names("leases") == [f"{KEY}.0.json", f"{KEY}.1.json"]
    leases.release(KEY)
    assert files.names("leases") == []


def test_only_one_run_takes_over_an_expired_lease(files: LocalFiles) -> None:
    clock = Clock()
    elsewhere(files)
    both = [Leases(files, name, expiry=10, clock=clock) for name in ("first", "second")]
    assert [leases.acquire(KEY) for leases in both] == [False, False]
    clock.now = 11
    assert [leases.acquire(KEY) for leases in both] == [True, False]
    both[0].renew()
    assert both[1].owner(KEY).startswith("first")


def test_the_lease_of_a_dead_process_is_taken_over(files: LocalFiles) -> None:
    program = (
        "import sys; from pathlib import Path;"
        "from mvlm.compile.jobs.store.leases import Leases;"
        "from mvlm.compile.jobs.store.local_files import LocalFiles;"
        "assert Leases(LocalFiles(Path(sys.argv[1])), 'gone').acquire(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", program, str(files.folder), KEY], check=True)
    assert files.names("leases") == [f"{KEY}.0.json"]
    assert Leases(files, "mine").acquire(KEY)


def test_the_lease_of_a_reused_pid_is_taken_over(files: LocalFiles) -> None:
    owner = this_process()
    elsewhere(files, host=owner.host, pid_namespace=owner.pid_namespace, started=owner.started - 1)
    assert Leases(files, "mine").acquire(KEY)


def test_a_taken_over_lease_is_not_released_by_its_old_owner(files: LocalFiles) -> None:
    """A machine that slept goes on to renew and release its lease; that of the other run stays."""
    clock = Clock()
    slept, other = Leases(files, "slept"), Leases(files, "other", expiry=10, clock=clock)
    assert slept.acquire(KEY)
    assert not other.acquire(KEY)
    clock.now = 11
    assert other.acquire(KEY)
    slept.renew()
    slept.release(KEY)
    assert files.names("leases") == [f"{KEY}.1.json"]
    assert not Leases(files, "third").acquire(KEY)


@settings(deadline=None, max_examples=30)
@given(content=st.binary(max_size=300), name=st.sampled_from(["0", "7", "x", "-1", "9" * 30]))
def test_any_lease_content_expires(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    """It is respected for a while, and then taken over."""
    files, clock = LocalFiles(tmp_path_factory.mktemp("leases")), Clock()
    files.write(f"leases/{KEY}.{name}.json", content)
    leases = Leases(files, "mine", expiry=10, clock=clock)
    is_mine = leases.acquire(KEY)
    if not is_mine:
        assert leases.owner(KEY)
        clock.now = 11
        is_mine = leases.acquire(KEY)
    assert is_mine
