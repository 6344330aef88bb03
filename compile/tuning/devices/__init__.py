"""The devices that candidates are measured on: this machine, or others over TVM's RPC."""

from mvlm.compile.tuning.devices.pool import DevicePool, JobFailedError, NoDeviceError, SelfTest
from mvlm.compile.tuning.devices.providers import DeviceProvider, LocalProvider, TrackerProvider

__all__ = [
    "DevicePool",
    "DeviceProvider",
    "JobFailedError",
    "LocalProvider",
    "NoDeviceError",
    "SelfTest",
    "TrackerProvider",
]
