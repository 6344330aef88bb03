"""Device providers: this machine, or a tracker's devices."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mvlm.runtime.errors import TargetError
from mvlm.runtime.measurement.server import Address
from mvlm.runtime.start_module import module_command

THIS_MACHINE = "this machine"
_CONNECT_SECONDS = 5.0


class DeviceProvider(Protocol):
    """Lists devices, which may join and leave while tuning."""

    def addresses(self) -> list[str]:
        """Return the addresses of all devices, busy ones included."""

    def command(self) -> list[str]:
        """Return the command of a process that connects to one free device."""


@dataclass(frozen=True)
class LocalProvider:
    """This machine alone.

    Attributes:
        runtime: The TVM runtime's library.
    """

    runtime: Path

    def addresses(self) -> list[str]:
        """Return this machine."""
        return [THIS_MACHINE]

    def command(self) -> list[str]:
        """Return the command of a child process, which a faulty kernel may crash."""
        return module_command("mvlm.runtime.measurement.worker", str(self.runtime))


@dataclass(frozen=True)
class TrackerProvider:
    """The devices of one key that are registered with a TVM tracker.

    Attributes:
        tracker: The tracker's address.
        key: The devices' key.
    """

    tracker: Address
    key: str

    def addresses(self) -> list[str]:
        """Ask the tracker.

        Raises:
            TargetError: The tracker does not answer.
        """
        return [address for key, address in known_devices(self.tracker) if key == self.key]

    def command(self) -> list[str]:
        """Return the command of a process that connects to a free device."""
        return module_command("mvlm.compile.tuning.devices.rpc_worker", str(self.tracker), self.key)


def known_devices(tracker: Address) -> list[tuple[str, str]]:
    """Return key and address of each registered device, busy ones included.

    Raises:
        TargetError: The tracker does not answer.
    """
    try:
        # Tried first, because TVM's client retries for a minute.
        socket.create_connection((tracker.host, tracker.port), _CONNECT_SECONDS).close()
        from tvm import rpc

        session = rpc.connect_tracker(tracker.host, tracker.port)
        summary = session.summary()
        session.close()
        return sorted(map(_key_and_address, summary["server_info"]))
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AssertionError) as error:
        raise TargetError(
            f"no tracker answers at {tracker}",
            found=(str(error).strip().splitlines() or ["nothing"])[-1][:120],
            fix="Start one with `mvlm device tracker`, and `mvlm device serve` on each device.",
        ) from None


def _key_and_address(server: Any) -> tuple[str, str]:
    """Read a tracker's entry, which comes from the device and is untrusted."""
    host, port = server["addr"]
    return str(server["key"]).partition(":")[2], f"{host}:{port}"
