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
    port: Annotated[
        int, typer.Option(metavar="N", help="The port, 1 to 65535; 0: any that is free.")
    ] = 9190,
    debug: Debug = False,
) -> None:
    """Run TVM's tracker, which knows the devices that are free, until Ctrl-C."""
    from mvlm.runtime.device.server import Address, listen
    from mvlm.runtime.errors import UsageError

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
    note(f"tracking devices at {Address(host, listener.getsockname()[1])}")
    run_tracker(listener, note)
