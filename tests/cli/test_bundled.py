"""`mvlm demo` with the model that is bundled: compiled once, and found from then on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import finish, start

pytestmark = pytest.mark.slow

# Leaves what compiles behind, as far as it was loaded, and the process's own peak memory.
_MEASURED = (
    "import sys; from mvlm.cli.app import run; code = run(sys.argv[1:]);"
    "print([m for m in ('tvm', 'torch', 'mvlm.compile.driver') if m in sys.modules],"
    "file=sys.stderr);"
    "print(*[l for l in open('/proc/self/status') if l.startswith('VmHWM')],"
    "end='', file=sys.stderr);"
    "sys.exit(code)"
)


def test_second_demo_compiles_nothing_and_is_small(empty_cache: Path) -> None:
    first = finish(start("demo", "--json"), timeout=300)
    assert first.exit_code == 0 and first.stderr.startswith("compiling mobilevlm-shapes")
    second = finish(start("demo", "--json", code=_MEASURED))
    assert second.exit_code == 0
    assert second.json["token_ids"] == first.json["token_ids"]
    modules, peak = second.stderr.splitlines()
    assert modules == "[]"
    assert int(peak.split()[1]) * 1024 < 250e6
