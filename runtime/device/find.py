"""The device of each kind."""

from __future__ import annotations

from collections.abc import Mapping

from mvlm.runtime.device.cpu import CpuDevice
from mvlm.runtime.device.device import Device
from mvlm.runtime.errors import ArtifactError

DEVICES: Mapping[str, type[Device]] = {CpuDevice.kind: CpuDevice}


def find_device(kind: str) -> Device:
    """Return the device of a kind.

    Args:
        kind: As a manifest names it.

    Raises:
        ArtifactError: There is none of that kind.
    """
    if kind not in DEVICES:
        raise ArtifactError(
            "this mvlm does not know devices of that kind",
            expected=" or ".join(DEVICES),
            found=f"{kind!r:.40}",
            fix="Install the mvlm that made the artifact, or compile it again with this one.",
        )
    return DEVICES[kind]()
