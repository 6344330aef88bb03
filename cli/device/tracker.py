"""``mvlm device tracker``: registers devices and hands them to tuners."""

from __future__ import annotations

from typing import Annotated

import typer

from mvlm.cli.shared.options import Debug
from mvlm.cli.shared.terminal import warn

EXAMPLES = ("mvlm device tracker --host 0.0.0.0 --port 9190",)


def command(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on; 0.0.0.0 is all.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", help="The port, 1 to 65535; 0: any free one.")
    ] = 9190,
    debug: Debug = False,
) -> None:
    """Run TVM's tracker, which registers devices and hands out free ones, until Ctrl-C."""
    from mvlm.runtime.errors import UsageError
    from mvlm.runtime.measurement.server import Address, listen

    # Before tvm is imported, which takes seconds.
    listener = listen(host, port)
    try:
        from mvlm.compile.tuning.devices.tracker import run_tracker
    except ModuleNotFoundError as error:
        listener.close()
        raise UsageError(
            "the tracker is not installed",
            expected="the packages of the extra `tune`",
            found=f"no {error.name}",
            fix='`pip install "mvlm[tune]"`.',
        ) from None
    warn(f"tracking devices at {Address(host, listener.getsockname()[1])}")
    run_tracker(listener, warn)
