"""``mvlm package``: an artifact with everything that a device needs to run it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvlm.cli.shared.options import Artifact, Debug, Json
from mvlm.cli.shared.progress import progress_bars
from mvlm.cli.shared.terminal import readable_bytes, show, show_json, show_table

EXAMPLES = (
    "mvlm package mobilevlm-kryo --for android-adb -o bundle",
    "mvlm package mobilevlm-board --for linux-aarch64 --python 3.11 -o bundle",
)


def command(
    artifact: Artifact,
    form: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="DEVICE",
            help="linux-aarch64 (a board with Python), android-termux or android-adb.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="The bundle's folder; default: ARTIFACT-DEVICE."
        ),
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X.Y",
            help="The board's version of Python; may be repeated; default: 3.10 to 3.13.",
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a bundle: an artifact with all that it needs on a device.

    The device runs it from that folder, without installation and without a network. mvlm fetches
    the packages for the device from PyPI and, for Android, from Debian.
    """
    from mvlm.distribution.bundle import find_form, make_bundle
    from mvlm.distribution.bundle.make import PYTHONS
    from mvlm.runtime.errors import UsageError

    chosen = find_form(form)
    for version in python or ():
        if version not in PYTHONS or not chosen.has_python:
            expected = " or ".join(PYTHONS) if chosen.has_python else "none: Debian's comes along"
            raise UsageError("--python", expected=expected, found=version)
    place = output or artifact.resolve().with_name(f"{artifact.resolve().name}-{form}")
    with progress_bars() as progress:
        make_bundle(artifact, chosen, place, python or PYTHONS, progress)
    size = sum(path.lstat().st_size for path in place.rglob("*") if path.is_file())
    if json:
        show_json({"bundle": str(place), "for": form, "bytes": size})
        return
    show(str(place))
    show_table([("for", chosen.summary), ("size", readable_bytes(size)), ("next", "README.txt")])
