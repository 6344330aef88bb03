"""What emulating an Armv8.2 device takes, unpacked into a folder: ``python -m tests.arm.sysroot``.

From Debian, by apt's own means but into a folder of ours, so that neither root nor a change of the
system is needed: qemu, and the arm64 Python with what it needs. From PyPI: the aarch64 wheels of
numpy and of tvm_ffi, and out of TVM's only its runtime library.

==============  ==============================================================
``qemu``        the emulator
``root``        Debian's arm64 packages
``packages``    the wheels, and a link to our runtime, for PYTHONPATH
``libraries``   libtvm_runtime.so
==============  ==============================================================
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
FOLDER = _REPOSITORY / "build" / "arm"

_DEBIAN = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
_WHEELS = ("numpy", "apache-tvm-ffi", "apache-tvm", "typing_extensions")
_PLATFORMS = ("manylinux2014", "manylinux_2_24", "manylinux_2_28")
_RUNTIME = "tvm/lib/libtvm_runtime.so"
_QEMU_NAMES = ("qemu-aarch64-static", "qemu-aarch64")
_DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def main() -> None:
    """Fill the folder, whole or not at all."""
    FOLDER.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix="arm-") as name:
        staging = Path(name) / "arm"
        staging.mkdir()
        _unpack_debian(staging, Path(name))
        _unpack_wheels(staging, Path(name))
        shutil.rmtree(FOLDER, ignore_errors=True)
        staging.rename(FOLDER)


def _unpack_debian(folder: Path, workspace: Path) -> None:
    here = _DEBIAN_NAMES[platform.machine()]
    environment = os.environ | {"APT_CONFIG": str(_apt_configuration(workspace / "apt", here))}
    # An empty status file: apt takes nothing as installed, and fetches all that is needed.
    packages = [f"qemu-user-static:{here}", *(f"{name}:arm64" for name in _DEBIAN)]
    install = ["install", "--download-only", "--yes", "--no-install-recommends", *packages]
    for arguments in (["update"], install):
        subprocess.run(["apt-get", "-qq", *arguments], check=True, env=environment)
    for package in sorted((workspace / "apt" / "archives").glob("*.deb")):
        place = folder / "root" if package.stem.endswith("_arm64") else workspace / "emulator"
        subprocess.run(["dpkg-deb", "--extract", package, place], check=True)
    if not (folder / "root" / "lib").exists():  # newer Debians have it as a link
        (folder / "root" / "lib").symlink_to("usr/lib")
    # The static build has had both names.
    programs = [workspace / "emulator" / "usr" / "bin" / name for name in _QEMU_NAMES]
    shutil.copy(next(path for path in programs if path.is_file()), folder / "qemu")


def _apt_configuration(folder: Path, here: str) -> Path:
    """Write what makes apt work in a folder, with the system's sources and keys."""
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    settings = {
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "APT::Architecture": "arm64",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    lines = [f'{key} "{value}";' for key, value in settings.items()]
    lines.append(f'APT::Architectures {{ "arm64"; "{here}"; }};')
    (folder / "apt.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "apt.conf"


def _unpack_wheels(folder: Path, workspace: Path) -> None:
    interpreter = (folder / "root" / "usr" / "bin" / "python3").readlink().name
    command = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(workspace / "wheels")]
    command += ["--python-version", interpreter.removeprefix("python")]
    command += [f"--platform={name}_aarch64" for name in _PLATFORMS]
    subprocess.run([*command, *_WHEELS], check=True)
    libraries = folder / "libraries"
    libraries.mkdir()
    for wheel in sorted((workspace / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            if wheel.name.startswith("apache_tvm-"):
                (libraries / Path(_RUNTIME).name).write_bytes(archive.read(_RUNTIME))
            else:
                archive.extractall(folder / "packages")
    (folder / "packages" / "mvlm").mkdir()
    (folder / "packages" / "mvlm" / "runtime").symlink_to(_REPOSITORY / "runtime")


if __name__ == "__main__":
    main()
