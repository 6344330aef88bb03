"""``mvlm verify``: whether an artifact is whole, and whether it belongs on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvlm.cli.shared.options import Artifact, Debug, Json
from mvlm.cli.shared.progress import progress_bars
from mvlm.cli.shared.terminal import readable_bytes, show_json, show_table

if TYPE_CHECKING:
    from mvlm.runtime.artifact import Manifest

EXAMPLES = ("mvlm verify mobilevlm-host", "mvlm verify mobilevlm-host --json")


def command(artifact: Artifact, json: Json = False, debug: Debug = False) -> None:
    """Check every byte of an artifact against its manifest.

    Exit code 1 if a file is damaged, missing or not in the manifest. An intact artifact for
    another machine is no error: the output says so, and the exit code is 0.
    """
    from mvlm.runtime.artifact import read_manifest, verify_files

    manifest = read_manifest(artifact)
    size = sum(entry.size for entry in manifest.files)
    read = 0
    with progress_bars(in_bytes=("verify",)) as progress:

        def advance(count: int) -> None:
            nonlocal read
            read += count
            progress("verify", read, size)

        verify_files(artifact, manifest, advance)
    incompatibility = _incompatibility(manifest)
    if json:
        show_json(
            {
                "artifact": str(artifact),
                "digest": manifest.digest,
                "files": len(manifest.files),
                "bytes": size,
                "intact": True,
                "fits_this_machine": incompatibility is None,
                "incompatibility": incompatibility,
            }
        )
        return
    show_table(
        [
            ("digest", manifest.digest),
            ("intact", f"yes: {len(manifest.files)} files, {readable_bytes(size)}"),
            ("runs here", "yes" if incompatibility is None else f"no: {incompatibility}"),
        ]
    )


def _incompatibility(manifest: Manifest) -> str | None:
    """Say why an artifact does not run here, if it does not."""
    from mvlm.runtime.artifact.verify import check_abi, check_machine
    from mvlm.runtime.errors import ArtifactError
    from mvlm.runtime.machine import read_machine

    try:
        check_machine(manifest, read_machine())
        check_abi(manifest)
    except ArtifactError as error:
        return str(error)
    return None
