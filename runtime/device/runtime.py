"""Finds the TVM runtime's library on a device."""

from __future__ import annotations

from pathlib import Path

from mvlm.runtime.artifact import verify_artifact
from mvlm.runtime.artifact.layout import MANIFEST, RUNTIME_LIBRARY
from mvlm.runtime.errors import UsageError
from mvlm.runtime.machine import read_machine
from mvlm.runtime.package_folder import package_folder

# Of a bundle: our code lies in ``code/mvlm`` beside the artifact.
_BUNDLED = "artifact"


def find_library(artifact: Path | None) -> Path:
    """Return the library of an artifact that was made for this machine, or of the compiler.

    Args:
        artifact: An artifact; a bundle's own if None, or else the installed compiler's.

    Raises:
        UsageError: There is none.
        ArtifactError: The artifact is damaged, or was made for another machine.
    """
    place = artifact or _bundled()
    if place is not None:
        verify_artifact(place, read_machine())
        return place / RUNTIME_LIBRARY
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
    place = package_folder("mvlm.runtime").parent.parent.parent / _BUNDLED
    return place if (place / MANIFEST).is_file() else None
