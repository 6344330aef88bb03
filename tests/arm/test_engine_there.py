"""Answers in company are those alone on the emulated device, too."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.arm import engine_worker
from tests.arm.conftest import Compile
from tests.arm.emulator import FOLDER, environment, require_emulator


@pytest.mark.extended
def test_answers_in_company_are_those_alone(compiled: Compile) -> None:
    require_emulator()
    artifact = compiled("snapdragon-888-cpu", "q4a8")
    done = subprocess.run(
        [FOLDER / "python", engine_worker.__file__, artifact],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["in_company"] == found["alone"]
    assert len(found["alone"]) == engine_worker.REQUESTS and found["drafted"] > 0
