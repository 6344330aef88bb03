"""What emulating an Armv8.2 device takes, unpacked into a folder: ``python -m tests.arm.sysroot``.

It is a bundle for an Android phone, as `mvlm package` makes one, but that it has links to our
packages in the place of copies, and:

=========  ===================================================
``qemu``   the emulator, from Debian
``cache``  the compiler's cache folder, with TVM's wheel in it
=========  ===================================================

Neither root nor a change of the system is needed.

Where the packages cannot be had, ``python -m tests.arm.sysroot --or-say-why`` leaves the reason in
a file, and the tests that need them print it and are skipped.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mvlm.distribution.bundle.code import PACKAGES, copy_code
from mvlm.distribution.bundle.debian import fetch_debian, unpack_debian
from mvlm.distribution.bundle.forms import find_form
from mvlm.distribution.bundle.make import DEBIAN_PYTHON, write_launchers
from mvlm.distribution.bundle.wheels import fetch_wheels, unpack_wheels
from mvlm.runtime.artifact.verify import TVM_VERSION
from mvlm.runtime.errors import MvlmError

_REPOSITORY = Path(__file__).parents[2]
FOLDER = _REPOSITORY / "build" / "arm"
CACHE = FOLDER / "cache"
REASON = FOLDER.with_suffix(".reason")

_QEMU_NAMES = ("qemu-aarch64-static", "qemu-aarch64")


def main() -> None:
    """Fill the folder, whole or not at all."""
    parser = argparse.ArgumentParser(prog="python -m tests.arm.sysroot", description=__doc__)
    parser.add_argument("--or-say-why", action="store_true", help=f"on failure write {REASON}")
    options = parser.parse_args()
    REASON.unlink(missing_ok=True)
    try:
        _fill()
    except (OSError, subprocess.CalledProcessError, MvlmError) as error:
        if not options.or_say_why:
            raise
        REASON.write_text(str(error)[:400], encoding="utf-8")
        print(f"no emulated device, because {error}", file=sys.stderr)


def _fill() -> None:
    begin = time.monotonic()
    FOLDER.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix="arm-") as name:
        staging = Path(name) / "arm"
        staging.mkdir()
        _unpack_emulator(staging, Path(name) / "emulator")
        version = unpack_debian(staging / "root", DEBIAN_PYTHON, "aarch64")
        unpack_wheels(staging / "packages", [version], "aarch64")
        write_launchers(staging, find_form("android-adb"))
        _link_code(staging / "code")
        wheels = staging / "cache" / "wheels"
        fetch_wheels([f"apache-tvm=={TVM_VERSION}"], wheels, version, "aarch64", alone=True)
        shutil.rmtree(FOLDER, ignore_errors=True)
        staging.rename(FOLDER)
    print(f"an emulated Armv8.2 device is set up, in {time.monotonic() - begin:.0f} s")


def _unpack_emulator(folder: Path, workspace: Path) -> None:
    workspace.mkdir()
    for package in fetch_debian(["qemu-user-static"], platform.machine(), workspace):
        place = workspace / "emulator"
        subprocess.run(["dpkg-deb", "--extract", package, place], check=True)
    # The static build has had both names.
    programs = [workspace / "emulator" / "usr" / "bin" / name for name in _QEMU_NAMES]
    shutil.copy(next(path for path in programs if path.is_file()), folder / "qemu")


def _link_code(folder: Path) -> None:
    """Write what a bundle's code has, with links to ours."""
    copy_code(folder)
    for package in PACKAGES:
        shutil.rmtree(folder / "mvlm" / package)
        (folder / "mvlm" / package).symlink_to(_REPOSITORY / package)


if __name__ == "__main__":
    main()
