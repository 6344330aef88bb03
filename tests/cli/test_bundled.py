"""`mvlm demo` with the model that is bundled: compiled once, and quick from then on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import finish, start

pytestmark = pytest.mark.slow

# Leaves the CPU seconds and the process's own peak memory behind, on standard error.
_MEASURED = (
    "import sys, time; from mvlm.cli.app import run; code = run(sys.argv[1:]);"
    "print(time.process_time(), file=sys.stderr);"
    "print(*[l for l in open('/proc/self/status') if l.startswith('VmHWM')], file=sys.stderr);"
    "sys.exit(code)"
)


def test_second_demo_is_quick_and_small(empty_cache: Path) -> None:
    first = finish(start("demo", "--json"), timeout=300)
    assert first.exit_code == 0 and first.stderr.startswith("compiling mobilevlm-shapes")
    second = finish(start("demo", "--json", code=_MEASURED))
    assert second.exit_code == 0
    assert second.json["token_ids"] == first.json["token_ids"]
    seconds, peak, *_ = second.stderr.splitlines()
    assert float(seconds) < 3
    assert second.json["stats"]["first_token_ms"] < 1500
    assert int(peak.split()[1]) * 1024 < 250e6
