"""Finds the TVM runtime's library for a device: what an artifact carries.

For this machine it is the installed package's. For another Linux machine it is taken out of that
package's wheel for its architecture, which pip fetches and checks. For Android there is no wheel:
see :mod:`mvlm.compile.toolchain.android_runtime`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import platform as python_platform
import shlex
import sys
import zipfile

from mvlm.compile.cache_folder import cache_folder, looking_in_cache
from mvlm.compile.toolchain.find import compiler_folder
from mvlm.runtime.artifact.verify import TVM_VERSION
from mvlm.runtime.errors import TargetError
from mvlm.runtime.targets.platforms import Platform

LIBRARY = "libtvm_runtime.so"
_MEMBER = f"tvm/lib/{LIBRARY}"
_RECORD = f"apache_tvm-{TVM_VERSION}.dist-info/RECORD"
# It has 3 MB; a wheel that says more is none of TVM's.
_MOST_BYTES = 64 << 20


def find_runtime_library(architecture: str, platform: Platform) -> bytes:
    """Return the TVM runtime's shared library for a device.

    Raises:
        TargetError: It is not there; says how to fetch it, or to build it.
    """
    if platform.name == "android":
        # Imported here because it is run by `python -m` as well, which warns of a module that its
        # package has imported before.
        from mvlm.compile.toolchain.android_runtime import find_android_library

        return find_android_library(architecture)
    if architecture == python_platform.machine():
        return (compiler_folder("tvm") / "lib" / LIBRARY).read_bytes()
    return _from_wheel(architecture)


def _from_wheel(architecture: str) -> bytes:
    pattern = f"apache_tvm-{TVM_VERSION}-*{architecture}.whl"
    with looking_in_cache(f"the TVM runtime for {architecture}"):
        folder = cache_folder() / "wheels"
        wheels = sorted(folder.glob(pattern))
    if not wheels:
        raise TargetError(
            f"no TVM runtime for {architecture}",
            expected=f"the wheel of apache-tvm {TVM_VERSION} in {folder}",
            found="none",
            fix=f"`{fetch_command(architecture)}`",
        )
    try:
        with zipfile.ZipFile(wheels[-1]) as archive:
            return _checked_member(archive)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise TargetError(
            f"{wheels[-1]} is damaged",
            found=str(error)[:120],
            fix=f"Delete it, then `{fetch_command(architecture)}`",
        ) from None


def fetch_command(architecture: str) -> str:
    """Return the command that fetches TVM's wheel for another architecture."""
    return (
        f"{shlex.quote(sys.executable)} -m pip download --no-deps --only-binary=:all: --platform "
        f"manylinux_2_28_{architecture} --dest {cache_folder() / 'wheels'} "
        f"apache-tvm=={TVM_VERSION}"
    )


def _checked_member(archive: zipfile.ZipFile) -> bytes:
    """Read the library, and compare it with the wheel's own list of digests (PEP 376)."""
    if archive.getinfo(_MEMBER).file_size > _MOST_BYTES:
        raise ValueError(f"{_MEMBER} is larger than {_MOST_BYTES} bytes")
    data = archive.read(_MEMBER)
    rows = csv.reader(io.StringIO(archive.read(_RECORD).decode()))
    listed = next((row[1] for row in rows if row and row[0] == _MEMBER), "")
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    if listed != f"sha256={digest}":
        raise ValueError(f"{_MEMBER} is not what its list of digests names")
    return data
