"""``mvlm inspect``: what an artifact is, was made from, and holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from mvlm.cli.shared.bit_plan import show_layers
from mvlm.cli.shared.kernel_table import kernels_document, show_kernels
from mvlm.cli.shared.options import Artifact, Debug, Json
from mvlm.cli.shared.terminal import readable_bytes, show, show_json, show_table

EXAMPLES = ("mvlm inspect mobilevlm-host", "mvlm inspect mobilevlm-host --json --kernels")


def command(
    artifact: Artifact,
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels", help="List the kernels that each function calls, and the bytes they move."
        ),
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show an artifact's manifest.

    It reads only the manifest; `mvlm verify` compares the files with it.
    """
    from mvlm.runtime.artifact import read_manifest
    from mvlm.runtime.artifact.kernels import read_kernel_traffic

    manifest = read_manifest(artifact)
    traffic = read_kernel_traffic(artifact) if kernels else {}
    document = {"digest": manifest.digest} | manifest.to_json()
    if json:
        show_json(document | (kernels_document(traffic) if kernels else {}))
        return
    files, layers = document.pop("files"), document.pop("layers", [])
    show_table([(name, _short(value)) for name, value in _flatten(document)])
    show("")
    show_table([(entry["path"], readable_bytes(entry["size"])) for entry in files])
    if layers:
        show("")
        show_layers(layers)
    for function, used in traffic.items():
        show("")
        show_kernels(function, used)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested objects, with dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _short(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
