"""Finds the TVM runtime's library on a device."""

from __future__ import annotations

from pathlib import Path

from mvlm.runtime.artifact import verify_artifact
from mvlm.runtime.artifact.layout import MANIFEST, RUNTIME_LIBRARY
from mvlm.runtime.errors import UsageError
from mvlm.runtime.folders import package_folder
from mvlm.runtime.machine import read_machine

# In a bundle, our code is in ``code/mvlm`` and the artifact beside ``code``.
_BUNDLED = "artifact"


def find_runtime_library(artifact: Path | None) -> Path:
    """Return the runtime library of an artifact for this machine, or of the installed apache-tvm.

    Args:
        artifact: An artifact; if None, the bundle's own or else the installed apache-tvm.

    Raises:
        UsageError: There is neither.
        ArtifactError: The artifact is damaged, or was made for another machine.
    """
    path = artifact or _bundled()
    if path is not None:
        verify_artifact(path, read_machine())
        return path / RUNTIME_LIBRARY
    try:
        library = package_folder("tvm") / "lib" / Path(RUNTIME_LIBRARY).name
    except ModuleNotFoundError:
        library = None
    if library is None or not library.is_file():
        raise UsageError(
            "there is no TVM runtime here",
            expected="an artifact that was compiled for this device, or apache-tvm",
            found="neither",
            fix="Name the artifact: `mvlm device serve ARTIFACT`.",
        )
    return library


def _bundled() -> Path | None:
    path = package_folder("mvlm.runtime").parent.parent.parent / _BUNDLED
    return path if (path / MANIFEST).is_file() else None
