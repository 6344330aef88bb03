"""Where devices come from."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mvlm.runtime.device.server import Address
from mvlm.runtime.errors import TargetError
from mvlm.runtime.start_module import module_command

THIS_MACHINE = "this machine"
_PATIENCE_SECONDS = 5.0


class Source(Protocol):
    """A place that devices come from, and go to, while we tune."""

    def addresses(self) -> list[str]:
        """Return where they are now, those at work included."""

    def command(self) -> list[str]:
        """Return what starts a process that connects to one of them."""


@dataclass(frozen=True)
class LocalSource:
    """This machine alone.

    Attributes:
        runtime: The TVM runtime's library.
    """

    runtime: Path

    def addresses(self) -> list[str]:
        """Return this one."""
        return [THIS_MACHINE]

    def command(self) -> list[str]:
        """Measure in a child process, which a wrong kernel may bring down."""
        return module_command("mvlm.runtime.device.worker", str(self.runtime))


@dataclass(frozen=True)
class TrackerSource:
    """The devices of one kind that a tracker of TVM's knows.

    Attributes:
        tracker: Its address.
        key: The kind.
    """

    tracker: Address
    key: str

    def addresses(self) -> list[str]:
        """Ask the tracker.

        Raises:
            TargetError: It is not there.
        """
        return [address for key, address in known_devices(self.tracker) if key == self.key]

    def command(self) -> list[str]:
        """Connect to whichever is free."""
        return module_command("mvlm.compile.tuning.devices.rpc_worker", str(self.tracker), self.key)


def known_devices(tracker: Address) -> list[tuple[str, str]]:
    """Return key and address of each device that a tracker knows, those at work included.

    Raises:
        TargetError: The tracker is not there.
    """
    try:
        # Tried first: TVM's own client tries again for a minute.
        socket.create_connection((tracker.host, tracker.port), _PATIENCE_SECONDS).close()
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
    """Read what a tracker says of a device, which the device has said of itself."""
    host, port = server["addr"]
    return str(server["key"]).partition(":")[2], f"{host}:{port}"
