"""Serves one connection over TVM's RPC, in a process of its own.

``python -m mvlm.runtime.measurement.rpc_session FD LIBRARY``: a crashing kernel ends its own
connection only.
In addition to TVM's RPC (file transfer, above all) it has two functions, with JSON in and out:
``mvlm.device.describe`` and ``mvlm.device.run``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from mvlm.runtime.ffi import tvm_ffi
from mvlm.runtime.loader import load_runtime
from mvlm.runtime.measurement.kernel_runner import KernelRunner, describe
from mvlm.runtime.measurement.worker import answer
from mvlm.runtime.threads import default_threads

DESCRIBE, RUN = "mvlm.device.describe", "mvlm.device.run"


def main() -> None:
    """Serve until the other side closes the connection."""
    socket, library = int(sys.argv[1]), Path(sys.argv[2])
    load_runtime(library)
    threads = default_threads()
    with tempfile.TemporaryDirectory(prefix="mvlm-device-") as folder:
        kernel_runner = KernelRunner(Path(folder), threads)

        def work_path(name: str) -> str:
            if Path(name).name != name:
                raise ValueError(f"{name!r} is not the name of a file")
            return os.path.join(folder, name)  # noqa: PTH118  # TVM takes text

        def run(text: str) -> str:
            return json.dumps(answer(kernel_runner, json.loads(text)))

        tvm_ffi.register_global_func("tvm.rpc.server.workpath", work_path, override=True)
        tvm_ffi.register_global_func(DESCRIBE, lambda: json.dumps(describe(threads)))
        tvm_ffi.register_global_func(RUN, run)
        tvm_ffi.get_global_func("rpc.ServerLoop")(socket)


if __name__ == "__main__":
    main()
