"""What several test processes share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.once import make_once

ROOT = Path(__file__).parents[1]

# Makes a folder of two files, slowly, unless another process has; says how often it made one.
MAKER = """
import sys, time
from pathlib import Path
from tests.once import make_once

def make(folder):
    folder.mkdir()
    (folder / "first").touch()
    print("begun", flush=True)
    time.sleep(float(sys.argv[2]))
    (folder / "second").touch()

folder = make_once(Path(sys.argv[1]), make)
print(sorted(path.name for path in folder.iterdir()))
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAKER, os.fspath(folder), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_one_process_makes_it_and_the_other_waits(tmp_path: Path) -> None:
    both = [start(tmp_path / "deep" / "folder", 0.3) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0] for process in both)
    whole = "['first', 'second']\n"
    assert said == [whole, f"begun\n{whole}"]


def test_a_maker_that_is_killed_leaves_nothing_that_counts(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with start(folder, 60) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in folder.iterdir()] == ["first"]
    assert not list(make_once(folder, Path.mkdir).iterdir())


def test_a_maker_that_fails_is_followed_by_the_next(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise ValueError("no more ink")

    with pytest.raises(ValueError, match="no more ink"):
        make_once(tmp_path / "file", fail)
    path = make_once(tmp_path / "file", lambda path: path.write_text("whole"))
    assert path.read_text() == "whole"
    assert make_once(path, fail).read_text() == "whole"
