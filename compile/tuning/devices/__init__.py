"""The devices that kernels are measured on: this machine, or others over TVM's RPC."""

from mvlm.compile.tuning.devices.pool import DevicePool, JobFailedError, NoDeviceError, Probe
from mvlm.compile.tuning.devices.sources import LocalSource, Source, TrackerSource

__all__ = [
    "DevicePool",
    "JobFailedError",
    "LocalSource",
    "NoDeviceError",
    "Probe",
    "Source",
    "TrackerSource",
]
