"""The device of each kind."""

from __future__ import annotations

from collections.abc import Mapping

from mvlm.runtime.device.cpu import CpuDevice
from mvlm.runtime.device.device import Device

DEVICES: Mapping[str, type[Device]] = {CpuDevice.kind: CpuDevice}


def find_device(kind: str) -> Device:
    """Return the device of a kind.

    Args:
        kind: Of a manifest that has been read, so that the kind is known.
    """
    return DEVICES[kind]()
