"""``lib/kernels.json``: the kernels that each compiled function calls."""

from __future__ import annotations

from pathlib import Path

from mvlm.runtime.artifact.document import read_document
from mvlm.runtime.artifact.layout import KERNELS


def read_kernel_calls(folder: Path) -> dict[str, dict[str, int]]:
    """Read, for every function of an artifact, how often it calls each kernel.

    Raises:
        ArtifactError: The file breaks the format.
    """
    document = read_document(folder / KERNELS)
    return {
        function: {kernel: document.child(function).get(kernel, int) for kernel in calls}
        for function, calls in document.values.items()
        if isinstance(calls, dict)
    }
