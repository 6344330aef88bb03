"""Wheels: fetched once, checked each time. No test has a network."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mvlm.bench.quality.wheels import GENSIM, PinnedWheel, fetch_wheel, read_member
from mvlm.runtime.errors import MvlmError

CONTENT = b"a wheel"
WHEEL = PinnedWheel("thing", "1.0", "thing-1.0.whl", hashlib.sha256(CONTENT).hexdigest())


class FakePip:
    """Writes a file where pip would, or fails."""

    def __init__(self, name: str, content: bytes = CONTENT, failure: str | None = None) -> None:
        self.calls: list[Sequence[str]] = []
        self._name, self._content, self._failure = name, content, failure

    def __call__(self, arguments: Sequence[str]) -> str | None:
        self.calls.append(arguments)
        folder = next(each for each in arguments if each.startswith("--dest=")).partition("=")[2]
        if self._failure is None:
            (Path(folder) / self._name).write_bytes(self._content)
        return self._failure


def test_a_wheel_is_fetched_once(tmp_path: Path) -> None:
    pip = FakePip(WHEEL.file)
    places = [fetch_wheel(WHEEL, tmp_path / "wheels", pip) for _ in range(2)]
    assert [place.read_bytes() for place in places] == [CONTENT, CONTENT]
    assert [call[-1] for call in pip.calls] == ["thing==1.0"]
    assert "--no-deps" in pip.calls[0]


def test_pip_takes_the_pinned_file_on_every_machine(tmp_path: Path) -> None:
    pip = FakePip(WHEEL.file)
    fetch_wheel(replace(WHEEL, options=GENSIM.options), tmp_path, pip)
    assert {"--python-version=3.11", "--platform=manylinux_2_28_x86_64"} < set(pip.calls[0])


def test_without_a_network_the_error_quotes_pip(tmp_path: Path) -> None:
    pip = FakePip(WHEEL.file, failure="ERROR: No matching distribution found for thing==1.0")
    with pytest.raises(MvlmError, match=r"thing==1.0 cannot be fetched.*No matching.*reachable"):
        fetch_wheel(WHEEL, tmp_path, pip)
    assert [*tmp_path.iterdir()] == []


def test_another_file_than_the_pinned_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(MvlmError, match=r"expected thing-1.0.whl, found other files: thing-1.0-x"):
        fetch_wheel(WHEEL, tmp_path, FakePip("thing-1.0-x.whl"))


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_wrong_hash_is_refused(tmp_path: Path, is_kept: bool) -> None:
    if is_kept:
        (tmp_path / WHEEL.file).write_bytes(b"another")
    with pytest.raises(MvlmError, match=rf"is not the file.*{WHEEL.sha256}.*Delete it"):
        fetch_wheel(WHEEL, tmp_path, FakePip(WHEEL.file, b"another"))
    assert (tmp_path / WHEEL.file).exists() == is_kept


def test_members_are_read_up_to_their_limit(tmp_path: Path) -> None:
    wheel = tmp_path / "thing.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("text", b"12345")
    assert read_member(wheel, "text", 5) == b"12345"
    with pytest.raises(MvlmError, match="too large"):
        read_member(wheel, "text", 4)
    with pytest.raises(MvlmError, match=r"cannot be read: expected other"):
        read_member(wheel, "other", 5)
    wheel.write_bytes(b"no archive")
    with pytest.raises(MvlmError, match="cannot be read"):
        read_member(wheel, "text", 5)
