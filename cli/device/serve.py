"""``mvlm device serve``: the one command to run on a device for tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvlm.cli.shared.options import Debug
from mvlm.cli.shared.terminal import warn

EXAMPLES = (
    "mvlm device serve --tracker 192.168.0.2:9190 --key phone --host 0.0.0.0",
    "mvlm device serve artifact --tracker 192.168.0.2:9190 --key phone --host 0.0.0.0",
)


def command(
    artifact: Annotated[
        Path | None,
        typer.Argument(
            metavar="[ARTIFACT]",
            help="The artifact whose TVM runtime is used, on a device without the compiler; "
            "default: the bundle's own, or else the installed apache-tvm.",
            show_default=False,
        ),
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Register the device with this tracker."),
    ] = None,
    key: Annotated[
        str, typer.Option(metavar="KEY", help="The device's key, which `--device-key` names.")
    ] = "device",
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="The address to listen on; 0.0.0.0 is all. Whoever can reach the port can run "
            "code on the device: open it only in a network that you trust.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", help="The port, 1 to 65535; default: any free one.")
    ] = 0,
    debug: Debug = False,
) -> None:
    """Serve this device to `mvlm tune --rpc`, until Ctrl-C.

    It needs no compiler: a bundle of `mvlm package` is enough. Each connection is served by a
    process of its own, so that a crashing kernel ends nothing else.
    """
    from mvlm.runtime.measurement.runtime_library import find_runtime_library
    from mvlm.runtime.measurement.server import Address, DeviceServer

    announced = None if tracker is None else Address.parse(tracker, "--tracker")
    library = find_runtime_library(artifact)
    server = DeviceServer(library, key, host, port, announced, warn)
    warn(
        f"listening at {server.address}"
        + (f", registered with {announced} as {key}" if announced else "")
    )
    try:
        server.serve()
    finally:
        server.close()
