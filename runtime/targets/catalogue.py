"""The targets that can be named: ours by their names, a user's by a file.

A file has the fields of :class:`TargetDescription` as its keys and tables, and ``schema = 1``:
every key is known, every value of its type.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mvlm.runtime.errors import TargetError, UsageError
from mvlm.runtime.machine import Machine
from mvlm.runtime.targets.description import TargetDescription
from mvlm.runtime.targets.platforms import PLATFORMS, Platform
from mvlm.runtime.toml_file import TomlFile, shown

SCHEMA_VERSION = 1
_EXAMPLE_FIX = "`mvlm targets --example` prints a description that is right."
_BOARDS = Path(__file__).parent / "boards"
_SUFFIX = ".toml"
# As they are listed: this machine, then boards, then any device of an API.
_ORDER = (
    "host",
    "portable",
    "snapdragon-888-cpu",
    "snapdragon-888-adreno",
    "jetson-orin",
    "cuda",
    "opencl",
)


def known_targets() -> dict[str, TargetDescription]:
    """Return our targets by their names."""
    return {name: _read_ours(name) for name in _ORDER}


@cache
def _read_ours(name: str) -> TargetDescription:
    return read_description(board_file(name))


def board_file(name: str) -> Path:
    """Return the file that describes one of our targets."""
    return _BOARDS / f"{name}{_SUFFIX}"


def find_description(name: str) -> TargetDescription:
    """Return a target by its name, or by the file that describes it.

    Args:
        name: One of ours, or a path that ends in ``.toml``.

    Raises:
        UsageError: There is none.
        TargetError: The file does not describe one; says which key is wrong.
    """
    if name.endswith(_SUFFIX):
        return read_description(Path(name))
    if name not in _ORDER:
        raise UsageError(
            "unknown target",
            expected=f"{' or '.join(_ORDER)}, or a file that ends in {_SUFFIX}",
            found=repr(name),
        )
    return _read_ours(name)


def read_description(path: Path) -> TargetDescription:
    """Read a target's description.

    Raises:
        UsageError: There is no such file.
        TargetError: It is no TOML, or a key is unknown, missing or wrong; says which.
    """
    file = TomlFile(path, "the target", TargetError, _EXAMPLE_FIX)
    document = file.parse()
    schema = document.pop("schema", None)
    if schema != SCHEMA_VERSION or isinstance(schema, bool):
        raise file.wrong("schema", str(SCHEMA_VERSION), shown(schema))
    return file.table(TargetDescription, document)


def choose_platform(
    description: TargetDescription, platform: str | None, machine: Machine
) -> Platform:
    """Return the system of a device: the one asked for, or its usual one.

    Raises:
        UsageError: It does not run that one.
    """
    possible = (machine.platform,) if description.cpu.is_native else description.needs.platforms
    if platform is not None and platform not in possible:
        raise UsageError(
            f"the platform of {description.name}", expected=" or ".join(possible), found=platform
        )
    return PLATFORMS[platform or possible[0]]
