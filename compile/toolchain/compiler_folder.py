"""Where the compiler's packages are installed, which are not imported for it."""

from __future__ import annotations

from pathlib import Path

from mvlm.runtime.artifact.verify import TVM_VERSION
from mvlm.runtime.errors import TargetError
from mvlm.runtime.folders import package_folder


def compiler_folder(name: str) -> Path:
    """Return the folder of one of the compiler's packages, which is not imported.

    Raises:
        TargetError: The compiler is not installed.
    """
    try:
        return package_folder(name)
    except ModuleNotFoundError:
        raise TargetError(
            "the compiler is not installed",
            expected=f"apache-tvm {TVM_VERSION}",
            found=f"no {name}",
            fix='`pip install "mvlm[compile]"`',
        ) from None
