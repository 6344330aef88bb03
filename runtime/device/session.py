"""Serves one connection over TVM's RPC: ``python -m mvlm.runtime.device.session FD LIBRARY``.

Each is a process of its own, so that a kernel that crashes ends its connection and nothing else.
Beside what TVM's RPC offers (files, above all) it has two functions of ours, with JSON in and out:
``mvlm.device.describe`` and ``mvlm.device.run``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from mvlm.runtime.device.measurement import Measurer, describe
from mvlm.runtime.device.worker import answer, prepare
from mvlm.runtime.ffi import tvm_ffi

DESCRIBE, RUN = "mvlm.device.describe", "mvlm.device.run"


def main() -> None:
    """Serve until the other side closes the connection."""
    socket, library = int(sys.argv[1]), Path(sys.argv[2])
    threads = prepare(library)
    with tempfile.TemporaryDirectory(prefix="mvlm-device-") as folder:
        measurer = Measurer(Path(folder))

        def place(name: str) -> str:
            if Path(name).name != name:
                raise ValueError(f"{name!r} is not the name of a file")
            return os.path.join(folder, name)  # noqa: PTH118  # TVM takes text

        def run(text: str) -> str:
            return json.dumps(answer(measurer, json.loads(text)))

        tvm_ffi.register_global_func("tvm.rpc.server.workpath", place, override=True)
        tvm_ffi.register_global_func(DESCRIBE, lambda: json.dumps(describe(threads)))
        tvm_ffi.register_global_func(RUN, run)
        tvm_ffi.get_global_func("rpc.ServerLoop")(socket)


if __name__ == "__main__":
    main()
