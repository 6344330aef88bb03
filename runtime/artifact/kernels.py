"""``lib/kernels.json``: the kernels that each compiled function calls, and the bytes they move.

::

    {"decode": {"linear_192x512": {"calls": 6, "weight_bytes": 331776, ...}, ...}, ...}

It was computed from shapes when the functions were compiled; nothing in it was measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mvlm.runtime.artifact.json_object import JsonObject, read_json_object
from mvlm.runtime.artifact.layout import KERNELS
from mvlm.runtime.errors import ArtifactError

_NAME = re.compile(r"[A-Za-z0-9_.]{1,200}")
# A million gigabytes, which no function moves.
_MAX_COUNT = 10**15


@dataclass(frozen=True)
class KernelTraffic:
    """How often one call of a function calls a kernel, and the bytes that all these calls move.

    An array counts as often as a kernel takes or returns it, and whole, whatever of it the kernel
    needs or reads twice. Of what has rows that are known only at run time (a prompt's positions),
    the bytes are ``x_bytes + rows * x_bytes_per_row``.

    Attributes:
        calls: How often.
        weight_bytes: Read of the model's parameters. Of an embedding table, the rows looked up.
        weight_bytes_per_row: The same, in addition, for each row.
        read_bytes: Read of everything else but the KV cache: activations, tables, constants.
        read_bytes_per_row: The same, in addition, for each row.
        written_bytes: Written, but for the KV cache.
        written_bytes_per_row: The same, in addition, for each row.
        cache_read_bytes_per_position: Read of the KV cache for each position in it.
        cache_written_bytes_per_position: Written to the KV cache for each new position.
    """

    calls: int = 0
    weight_bytes: int = 0
    weight_bytes_per_row: int = 0
    read_bytes: int = 0
    read_bytes_per_row: int = 0
    written_bytes: int = 0
    written_bytes_per_row: int = 0
    cache_read_bytes_per_position: int = 0
    cache_written_bytes_per_position: int = 0

    def __add__(self, other: KernelTraffic) -> KernelTraffic:
        """Return the sum of both."""
        theirs = asdict(other)
        return KernelTraffic(**{name: value + theirs[name] for name, value in asdict(self).items()})


def total_traffic(traffic: Iterable[KernelTraffic]) -> KernelTraffic:
    """Return the sum of what several kernels move."""
    return sum(traffic, KernelTraffic())


def traffic_to_json(
    functions: Mapping[str, Mapping[str, KernelTraffic]],
) -> dict[str, dict[str, dict[str, int]]]:
    """Return the file's content as plain JSON values."""
    return {
        function: {name: asdict(kernel) for name, kernel in traffic.items()}
        for function, traffic in functions.items()
    }


def read_kernel_traffic(folder: Path) -> dict[str, dict[str, KernelTraffic]]:
    """Read the memory traffic of each kernel, for every function of an artifact.

    Raises:
        ArtifactError: The file breaks the format.
    """
    document = read_json_object(folder / KERNELS)
    return {name: _read_function(_named(document, name)) for name in document.values}


def _read_function(document: JsonObject) -> dict[str, KernelTraffic]:
    return {name: _read_traffic(_named(document, name)) for name in document.values}


def _read_traffic(document: JsonObject) -> KernelTraffic:
    return KernelTraffic(
        **{field.name: _read_count(document, field.name) for field in fields(KernelTraffic)}
    )


def _read_count(document: JsonObject, key: str) -> int:
    count = document.get(key, int)
    if not 0 <= count <= _MAX_COUNT:
        raise ArtifactError(
            f"{document.where}: key {key!r} is wrong",
            expected=f"0 to {_MAX_COUNT}",
            found="a negative number" if count < 0 else "more than that",
        )
    return count


def _named(document: JsonObject, name: str) -> JsonObject:
    """Return the object under a key that names a function or a kernel."""
    if not _NAME.fullmatch(name):
        raise ArtifactError(
            f"{document.where} is wrong",
            expected="names of letters, digits, underscores and dots",
            found=f"{name!r:.60}",
        )
    return document.child(name)
