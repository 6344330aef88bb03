"""What a kernel set needs of the device that runs its code. Imports no tvm."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceNeeds:
    """What a kernel set needs of a device.

    Attributes:
        kind: The kind of device: cpu, cuda or opencl.
        features: CPU features that every kernel uses, by /proc/cpuinfo's names. A kernel that
            chooses its instructions by the target's features needs none of them.
    """

    kind: str = "cpu"
    features: frozenset[str] = frozenset()


ANY_CPU = DeviceNeeds()
