"""What decoding executes on the emulated device is what its loop says, and little more."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvlm.bench.studies.instructions import DOCUMENT, PROCESSORS, compile_loop
from tests.arm.counting import count, table

pytestmark = pytest.mark.arm

# Of the loop's instructions: checks of arguments, a panel's beginning and end, the threads' turns.
MOST_BESIDE = 0.1


def test_instructions_that_are_executed(tmp_path: Path) -> None:
    found, loop = count(tmp_path), compile_loop(PROCESSORS[0])
    assert loop.per_byte < found.per_byte < (1 + MOST_BESIDE) * loop.per_byte
    root = Path(__file__).parents[2]
    assert table(found) in (root / DOCUMENT).read_text(encoding="utf-8")
