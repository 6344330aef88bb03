"""Which devices match a target, by their descriptions."""

from __future__ import annotations

from typing import Any, cast

import pytest

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.toolchain import Linker
from mvlm.compile.tuning.device_match import mismatch
from mvlm.runtime.measurement.kernel_runner import PROTOCOL
from mvlm.runtime.targets import find_description

KRYO = find_description("snapdragon-888-cpu")
# Nothing is linked here.
TARGET = CompileTarget(
    KRYO.name, "aarch64", ("asimd", "asimddp"), "cpu", {}, cast("Linker", None), b""
)


def device(**changes: object) -> dict[str, Any]:
    """Return the description of a phone with this chip."""
    machine = {
        "architecture": "aarch64",
        "cpu": "Kryo 680",
        "features": ["asimd", "asimddp", "fphp"],
        "cores": 8,
        "memory_bytes": 8 << 30,
        "platform": "android",
        "libc": "api 33",
        "core_parts": ["41:d05", "41:d41", "41:d44"],
        "names": ["lahaina"],
        "is_emulated": False,
    }
    return {
        "protocol": PROTOCOL,
        "machine": {**machine, **changes},
        "threads": 4,
        "state": {"cores": [{"core": 0}]},
    }


def test_a_matching_device() -> None:
    assert mismatch(TARGET, KRYO, device()) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "x86_64"}, "is x86_64, not aarch64"),
        ({"features": ["asimd"]}, "has no asimddp"),
        ({"core_parts": ["41:d0b"], "names": [], "cpu": "another"}, "is another, which is not"),
    ],
)
def test_mismatching_devices(changes: dict[str, object], reason: str) -> None:
    assert reason in (mismatch(TARGET, KRYO, device(**changes)) or "")


@pytest.mark.parametrize("version", [{}, {"protocol": 1}])
def test_a_device_with_another_protocol(version: dict[str, int]) -> None:
    """Older bundles have no version in their description."""
    older = {key: value for key, value in device().items() if key != "protocol"}
    assert "runs another version of mvlm" in (mismatch(TARGET, KRYO, {**older, **version}) or "")


def test_an_emulator_matches() -> None:
    assert mismatch(TARGET, KRYO, device(core_parts=[], names=[], is_emulated=True)) is None


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"machine": []},
        {"machine": {}, "threads": 4},
        {**device(), "threads": "many"},
        {**device(), "state": {"cores": [7]}},
        {**device(), "state": "well"},
        device(cpu=["a", "list"]),
        device(features=7),
        device(is_emulated="no"),
        device(surprise=1),
    ],
)
def test_invalid_descriptions(answer: dict[str, Any]) -> None:
    assert "has an invalid description" in (mismatch(TARGET, KRYO, answer) or "")
