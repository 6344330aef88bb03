"""Running an arm64 Python, with our runtime, on a CPU that has what the Snapdragon 888's have."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from tests.arm.sysroot import CACHE, FOLDER, REASON

# The oldest of the cores that have what the Snapdragon 888's have. What it has not is an illegal
# instruction here: a test that passes has used nothing newer.
KRYO_CPU = "cortex-a76"


def require_emulator() -> None:
    """Skip a test where Debian's or PyPI's packages could not be had, and say why.

    Where nobody has tried to get them, as `make` does, it fails.
    """
    if REASON.exists():
        pytest.skip(f"no emulated device: {REASON.read_text(encoding='utf-8')}")
    if not FOLDER.exists():
        pytest.fail("no Armv8.2 device is set up: run `make build/arm.stamp`")


@contextmanager
def fetched_toolchain() -> Iterator[None]:
    """Have the compiler find what was fetched for the device."""
    require_emulator()
    with mock.patch.dict(os.environ, MVLM_CACHE=os.fspath(CACHE)):
        yield


def environment(cpu: str = KRYO_CPU, options: str = "") -> dict[str, str]:
    """Return the environment in which a bundle's programs run on an emulated core.

    Args:
        cpu: The core, by qemu's name.
        options: Further ones of qemu's.
    """
    return os.environ | {
        "MVLM_RUN_WITH": f"{FOLDER / 'qemu'} -cpu {cpu} {options}",
        "TVM_NUM_THREADS": "2",
    }


def run_mvlm(
    *arguments: str | Path, cpu: str = KRYO_CPU, bundle: Path = FOLDER, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run our command line on the emulated device."""
    require_emulator()
    return subprocess.run(
        [bundle / "mvlm", *arguments],
        env=environment(cpu),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
