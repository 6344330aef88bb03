"""Measures for the process that started it: ``python -m mvlm.runtime.measurement.worker LIBRARY``.

One JSON object a line, in and out. The first line out describes the machine; each further one
answers a request, with ``{"error": ...}`` where it cannot be run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mvlm.runtime.loader import load_runtime
from mvlm.runtime.measurement.kernel_runner import KernelRunner, MeasureRequest, describe
from mvlm.runtime.threads import default_threads


def answer(kernel_runner: KernelRunner, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run a request; an error becomes an answer."""
    try:
        return kernel_runner.run(MeasureRequest.from_json(request))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:2000]}


def serve(prepared: Callable[[], dict[str, Any]], reply: Callable[[Any], dict[str, Any]]) -> None:
    """Speak the protocol on standard input and output, until the input ends."""
    # A library's output must not mix with the answers.
    out, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(prepared()), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(reply(json.loads(line))), file=out, flush=True)


def main() -> None:
    """Measure until standard input ends."""
    load_runtime(Path(sys.argv[1]))
    threads = default_threads()
    kernel_runner = KernelRunner(Path("/"), threads)
    serve(lambda: describe(threads), lambda request: answer(kernel_runner, request))


if __name__ == "__main__":
    main()
