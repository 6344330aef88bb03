"""Index files, which say which of the weight files next to them holds what."""

from __future__ import annotations

from pathlib import Path

from mvlm.models.json_config import read_json_config, short_repr
from mvlm.runtime.errors import CheckpointError, ConfigError


def read_index(index: Path) -> dict[str, str]:
    """Return the tensors' names, each with the plain name of the file that holds it.

    Raises:
        CheckpointError: The index is damaged, lists nothing, or names files outside its folder.
    """
    try:
        weight_map = read_json_config(index).section("weight_map").values
    except ConfigError as error:
        raise CheckpointError(
            error.problem, expected=error.expected, found=error.found, fix=error.fix
        ) from None
    if not weight_map:
        raise CheckpointError(
            f"{index} lists no tensor", fix="Download the file again, or remove it."
        )
    suffix = ".safetensors" if ".safetensors" in index.name else ".bin"
    return {name: plain_name(index, shard, suffix) for name, shard in weight_map.items()}


def plain_name(index: Path, name: object, suffix: str) -> str:
    """Return the name of a file that an index names, if it is one next to the index.

    Raises:
        CheckpointError: It is not: a path could lead out of the folder.
    """
    plain = isinstance(name, str) and not set(name) & {"/", "\\", ":", "\0"}
    if not isinstance(name, str) or not plain or not name.endswith(suffix):
        raise CheckpointError(
            f"{index} names a file that is not next to it",
            expected=f"a plain file name ending in {suffix}",
            found=short_repr(name),
            fix="Do not use this checkpoint.",
        )
    return name
