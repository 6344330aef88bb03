"""Claims: one owner at a time, and none that is dead keeps a step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.compile.jobs.process import this_process
from mvlm.compile.jobs.store.claims import Claims
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
    """Write a claim of another machine, of which nobody can tell whether it is alive."""
    owner = this_process().to_json() | {"host": "far", "space": "far away"} | changes
    content = json.dumps({"run": "another", "owner": owner, "beat": 1})
    files.write(f"claims/{KEY}.{number}.json", content.encode())


def test_one_at_a_time(files: LocalFiles) -> None:
    first, second = Claims(files, "first"), Claims(files, "second")
    assert first.take(KEY)
    assert not second.take(KEY)
    assert second.holder(KEY).startswith("first on ")
    assert second.take(OTHER)
    first.release(KEY)
    assert second.take(KEY)
    second.release_all()
    assert files.names("claims") == []


def test_one_that_beats_is_never_taken_over(files: LocalFiles) -> None:
    clock = Clock()
    first, second = Claims(files, "first"), Claims(files, "second", patience=10, clock=clock)
    assert first.take(KEY)
    for _ in range(20):
        assert not second.take(KEY)
        clock.now += 9
        first.beat()


def test_one_that_does_not_beat_is_taken_over(files: LocalFiles) -> None:
    """By the clock of whoever waits: how old a claim says it is does not count."""
    clock = Clock()
    elsewhere(files)
    claims = Claims(files, "mine", patience=10, clock=clock)
    assert not claims.take(KEY)
    clock.now = 9
    assert not claims.take(KEY)
    clock.now = 11
    assert claims.take(KEY)
    assert files.names("claims") == [f"{KEY}.0.json", f"{KEY}.1.json"]
    claims.release(KEY)
    assert files.names("claims") == []


def test_of_those_that_take_over_one_does(files: LocalFiles) -> None:
    clock = Clock()
    elsewhere(files)
    both = [Claims(files, name, patience=10, clock=clock) for name in ("first", "second")]
    assert [claims.take(KEY) for claims in both] == [False, False]
    clock.now = 11
    assert [claims.take(KEY) for claims in both] == [True, False]
    both[0].beat()
    assert both[1].holder(KEY).startswith("first")


def test_a_process_that_is_gone_holds_nothing(files: LocalFiles) -> None:
    program = (
        "import sys; from pathlib import Path;"
        "from mvlm.compile.jobs.store.claims import Claims;"
        "from mvlm.compile.jobs.store.local_files import LocalFiles;"
        "assert Claims(LocalFiles(Path(sys.argv[1])), 'gone').take(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", program, str(files.folder), KEY], check=True)
    assert files.names("claims") == [f"{KEY}.0.json"]
    assert Claims(files, "mine").take(KEY)


def test_a_number_that_is_used_again_is_another_process(files: LocalFiles) -> None:
    owner = this_process()
    elsewhere(files, host=owner.host, space=owner.space, started=owner.started - 1)
    assert Claims(files, "mine").take(KEY)


def test_one_that_was_taken_over_does_no_harm(files: LocalFiles) -> None:
    """A machine that slept beats on and releases; the claim of the other one stays."""
    clock = Clock()
    slept, other = Claims(files, "slept"), Claims(files, "other", patience=10, clock=clock)
    assert slept.take(KEY)
    assert not other.take(KEY)
    clock.now = 11
    assert other.take(KEY)
    slept.beat()
    slept.release(KEY)
    assert files.names("claims") == [f"{KEY}.1.json"]
    assert not Claims(files, "third").take(KEY)


@settings(deadline=None, max_examples=30)
@given(content=st.binary(max_size=300), name=st.sampled_from(["0", "7", "x", "-1", "9" * 30]))
def test_whatever_a_claim_holds(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    """It is respected for a while, and then taken over."""
    files, clock = LocalFiles(tmp_path_factory.mktemp("claims")), Clock()
    files.write(f"claims/{KEY}.{name}.json", content)
    claims = Claims(files, "mine", patience=10, clock=clock)
    if not claims.take(KEY):
        assert claims.holder(KEY)
        clock.now = 11
        assert claims.take(KEY)
