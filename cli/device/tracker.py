"""``mvlm device tracker``: where devices and those who need them meet."""

from __future__ import annotations

from typing import Annotated

import typer

from mvlm.cli.shared.options import Debug
from mvlm.cli.shared.terminal import note

EXAMPLES = ("mvlm device tracker --host 0.0.0.0 --port 9190",)


def command(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is everywhere.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="The port.")] = 9190,
    debug: Debug = False,
) -> None:
    """Run TVM's tracker, which knows the devices that are free, until Ctrl-C."""
    import signal

    from mvlm.runtime.errors import UsageError

    try:
        from tvm.rpc.tracker import Tracker

        tracker = Tracker(host, port=port, port_end=port + 1, silent=True)
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        raise UsageError(
            f"no tracker can be started at {host}:{port}",
            found=(str(error).strip().splitlines() or ["an error"])[-1][:160],
            fix='Name a free port; it takes `pip install "mvlm[tune]"`.',
        ) from None
    note(f"tracking devices at {host}:{tracker.port}")
    try:
        signal.pause()
    finally:
        tracker.terminate()
