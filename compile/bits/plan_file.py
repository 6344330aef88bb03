"""Plans of bits as files.

A file is a JSON object whose ``layers`` is a list with an object for each layer, from the first
on: ``{"attention": "q4a8", "gate_up": "q3a8", "down": "q4a8"}``.

Imports no tvm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mvlm.models.quantization import UNITS, BitPlan, LayerPlan
from mvlm.runtime.atomic_write import atomic_write
from mvlm.runtime.errors import UsageError

_MOST_BYTES = 1 << 20
_FIX = "`mvlm plan MODEL --bits N -o FILE` writes a plan that is right."


class PlanError(UsageError):
    """A file is no plan of bits."""


def write_plan(path: Path, plan: BitPlan) -> None:
    """Write a plan, a layer a line.

    Raises:
        UsageError: The file cannot be written.
    """
    layers = ",\n".join(f"  {json.dumps(layer)}" for layer in plan.to_json()["layers"])
    try:
        with atomic_write(path) as file:
            file.write(f'{{"layers": [\n{layers}\n]}}\n'.encode())
    except OSError as error:
        raise UsageError(f"cannot write {path}", found=error.strerror) from None


def read_plan(path: Path) -> BitPlan:
    """Read a plan.

    Raises:
        PlanError: The file is absent, or is not what :func:`write_plan` writes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise PlanError(f"cannot read {path}", found=error.strerror, fix=_FIX) from None
    if len(data) > _MOST_BYTES:
        raise PlanError(f"{path} is too large", expected=f"at most {_MOST_BYTES:,} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path} is not valid JSON", found=str(error)[:120]) from None
    return parse_plan(document, str(path))


def parse_plan(document: Any, where: str) -> BitPlan:
    """Return the plan that a file's JSON value stands for.

    Args:
        document: The value.
        where: Its source, for messages.

    Raises:
        PlanError: It is none.
    """
    _check_keys(document, ("layers",), where)
    layers = document["layers"]
    if not isinstance(layers, list) or not layers:
        raise PlanError(
            f"{where}: `layers` is wrong",
            expected="a list with an object for each layer",
            found=_shown(layers),
            fix=_FIX,
        )
    return BitPlan(tuple(_layer(each, f"{where}: layers[{i}]") for i, each in enumerate(layers)))


def _layer(values: Any, where: str) -> LayerPlan:
    _check_keys(values, UNITS, where)
    try:
        return LayerPlan(**values)
    except UsageError as error:
        raise PlanError(f"{where}: {error}") from None


def _check_keys(values: Any, keys: tuple[str, ...], where: str) -> None:
    if not isinstance(values, dict) or values.keys() != {*keys}:
        raise PlanError(
            f"{where} is wrong",
            expected=f"an object with {', '.join(keys)}",
            found=", ".join(map(_shown, values)) if isinstance(values, dict) else _shown(values),
            fix=_FIX,
        )


def _shown(value: object) -> str:
    return repr(value)[:40]
