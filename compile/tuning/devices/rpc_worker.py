"""Forwards requests to a device: ``python -m mvlm.compile.tuning.devices.rpc_worker TRACKER KEY``.

Each device has such a process: TVM's RPC has no timeout, and a process can be killed. It speaks the
protocol of `mvlm.runtime.measurement.worker`; files are uploaded first, arguments only once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvlm.runtime.measurement.rpc_session import DESCRIBE, RUN
from mvlm.runtime.measurement.server import Address
from mvlm.runtime.measurement.worker import serve


class _Device:
    """One device, taken from a tracker."""

    def __init__(self, tracker: Address, key: str) -> None:
        from tvm import rpc
        from tvm.rpc import base

        session = rpc.connect_tracker(tracker.host, tracker.port)
        # As the session's own `request`, which does not return the device's address.
        base.sendjson(session._sock, [base.TrackerCode.REQUEST, key, "", 1])
        _, (host, port, matching) = base.recvjson(session._sock)
        session.close()
        self._address, self._arguments = f"{host}:{port}", ""
        self._session = rpc.connect(host, port, matching)
        try:
            self._describe, self._run = map(self._session.get_function, (DESCRIBE, RUN))
        except (AttributeError, RuntimeError, ValueError):
            raise SystemExit(f"{host}:{port} does not run `mvlm device serve`") from None

    def describe(self) -> dict[str, Any]:
        """Return the device's description with its address."""
        return {**json.loads(str(self._describe())), "address": self._address}

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Upload a request's files, then send the request."""
        arguments, libraries = Path(request["arguments"]), list(map(Path, request["libraries"]))
        if self._arguments != str(arguments):
            if self._arguments:
                self._session.remove(Path(self._arguments).name)
            self._session.upload(str(arguments), arguments.name)
            self._arguments = str(arguments)
        for library in libraries:
            self._session.upload(str(library), library.name)
        outputs = request["outputs"] and Path(request["outputs"])
        sent = [library.name for library in libraries]
        names = {
            "arguments": arguments.name,
            "libraries": sent,
            "outputs": outputs and outputs.name,
        }
        answer: dict[str, Any] = json.loads(str(self._run(json.dumps({**request, **names}))))
        if outputs and "error" not in answer:
            outputs.write_bytes(self._session.download(outputs.name))
        for name in [*sent, *([outputs.name] if outputs else [])]:
            self._session.remove(name)
        return answer


def main() -> None:
    """Forward requests until standard input ends."""
    device = _Device(Address.parse(sys.argv[1], "TRACKER"), sys.argv[2])
    serve(device.describe, device.answer)


if __name__ == "__main__":
    main()
