"""What code needs of a device of each kind, compared with what the device has.

Nothing here loads tvm_ffi or a driver's Python module: artifacts are checked before that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from mvlm.runtime.errors import ArtifactError
from mvlm.runtime.machine import Machine

_MAX_FEATURES = 256


class DeviceRequirements(ABC):
    """What code needs of a device of one kind.

    A subclass is a frozen dataclass. Its fields are the keys in the manifest, all of which must be
    there; their types are str, int, or a tuple of str. It raises ValueError for impossible values.
    """

    @abstractmethod
    def check(self, machine: Machine, target: str) -> None:
        """Compare what is needed with the device of this machine.

        Args:
            machine: This machine.
            target: Name of the target that the code was compiled for.

        Raises:
            ArtifactError: The device lacks something; names both sides.
        """


@dataclass(frozen=True)
class CpuRequirements(DeviceRequirements):
    """What code needs of a CPU: kernels that run on it, or the code that calls another device's.

    Attributes:
        architecture: As ``uname -m`` says it.
        features: The CPU features that the code uses, by /proc/cpuinfo's names.
    """

    architecture: str
    features: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.features) > _MAX_FEATURES:
            raise ValueError(f"{len(self.features)} CPU features, more than {_MAX_FEATURES}")

    def check(self, machine: Machine, target: str) -> None:
        """Refuse another architecture, or a CPU that lacks a feature."""
        compile_here = "Compile it here with `mvlm compile MODEL --target host`."
        if self.architecture != machine.architecture:
            raise ArtifactError(
                "the artifact is for another architecture",
                expected=f"{machine.architecture} (this machine)",
                found=f"{self.architecture} (target {target})",
                fix=compile_here,
            )
        absent = sorted(set(self.features) - machine.features)
        if absent:
            raise ArtifactError(
                "the artifact needs CPU features that this machine lacks",
                expected=", ".join(absent),
                found=f"{machine.cpu} without {'it' if len(absent) == 1 else 'them'}",
                fix=compile_here,
            )


# The kind that runs the host code of all devices.
HOST = "cpu"
# The kinds of devices, by the names that manifests have for them.
REQUIREMENTS: Mapping[str, type[DeviceRequirements]] = {HOST: CpuRequirements}
