"""``mvlm device list``: the devices that are registered with a tracker."""

from __future__ import annotations

from typing import Annotated

import typer

from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.terminal import show, show_columns, show_json

EXAMPLES = ("mvlm device list --tracker 192.168.0.2:9190",)


def command(
    tracker: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The tracker.")
    ] = "127.0.0.1:9190",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the devices that are registered with a tracker, by key."""
    from mvlm.compile.tuning.devices.providers import known_devices
    from mvlm.runtime.measurement.server import Address

    found = known_devices(Address.parse(tracker, "--tracker"))
    if json:
        show_json({"devices": [{"key": key, "address": address} for key, address in found]})
        return
    if not found:
        show("no devices: run `mvlm device serve --tracker ...` on one")
        return
    show_columns([("key", "address"), *found])
