"""The kernels of an artifact's functions, and the bytes they move, as a table and as a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mvlm.cli.shared.terminal import readable_bytes, show, show_columns

if TYPE_CHECKING:
    from mvlm.runtime.artifact.kernels import KernelTraffic

_HEADER = ("kernel", "calls", "weights read", "activations read", "written")
_CACHE_HEADER = ("cache read", "cache written")


def kernels_document(functions: Mapping[str, Mapping[str, KernelTraffic]]) -> dict[str, Any]:
    """Return what ``--json`` says of them: ``kernels``, and the sums as ``kernel_totals``."""
    from mvlm.runtime.artifact.kernels import total_traffic, traffic_to_json

    totals = {name: asdict(total_traffic(traffic.values())) for name, traffic in functions.items()}
    return {"kernels": traffic_to_json(functions), "kernel_totals": totals}


def show_kernels(function: str, traffic: Mapping[str, KernelTraffic]) -> None:
    """Print a function's kernels, those that move most first, and what all move together."""
    from mvlm.runtime.artifact.kernels import total_traffic

    total = total_traffic(traffic.values())
    show(f"{function}: {total.calls} calls of {len(traffic)} kernels")
    if not traffic:
        return
    has_cache = bool(total.cache_read_bytes_per_position + total.cache_written_bytes_per_position)
    header = _HEADER + (_CACHE_HEADER if has_cache else ())
    ordered = sorted(traffic.items(), key=lambda item: -_moved(item[1]))
    rows = [_row(name, kernel, has_cache) for name, kernel in [*ordered, ("total", total)]]
    show_columns([header, *rows])
    if has_cache:
        show(
            f"KV cache bytes a position: {total.cache_read_bytes_per_position:,} read for each one "
            f"in it, {total.cache_written_bytes_per_position:,} written for a new one"
        )


def _moved(kernel: KernelTraffic) -> int:
    """Return the bytes that one row and one position move."""
    amounts: dict[str, int] = asdict(kernel)
    return sum(amounts.values()) - kernel.calls


def _row(name: str, kernel: KernelTraffic, has_cache: bool) -> tuple[str, ...]:
    cells = [
        _size(kernel.weight_bytes, kernel.weight_bytes_per_row),
        _size(kernel.read_bytes, kernel.read_bytes_per_row),
        _size(kernel.written_bytes, kernel.written_bytes_per_row),
    ]
    if has_cache:
        cells += [
            _size(per_position=kernel.cache_read_bytes_per_position),
            _size(per_position=kernel.cache_written_bytes_per_position),
        ]
    return (name, str(kernel.calls), *cells)


def _size(fixed: int = 0, per_row: int = 0, per_position: int = 0) -> str:
    terms = [readable_bytes(fixed)] if fixed else []
    if per_row:
        terms.append(f"{readable_bytes(per_row)}/row")
    if per_position:
        terms.append(f"{readable_bytes(per_position)}/position")
    return " + ".join(terms) or "-"
