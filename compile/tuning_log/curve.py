"""The best time of a task by the number of its measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from mvlm.compile.tuning_log.database import Database
from mvlm.runtime.errors import MvlmError, UsageError

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 16
_MAX_CURVES = 12


def best_so_far(database: Database, key: str) -> list[float]:
    """Return the least median, in seconds, after each measurement of a task."""
    return list(accumulate((record.median for _, record in database.records_of(key)), min))


def sparkline(curve: Sequence[float]) -> str:
    """Draw a curve as a line of bars, scaled from its lowest to its highest value."""
    if len(curve) < 2:
        return ""
    picked = [curve[round(index * (len(curve) - 1) / (_WIDTH - 1))] for index in range(_WIDTH)]
    low, high = min(picked), max(picked)
    span = high - low
    if span <= 0:
        return _BARS[-1] * _WIDTH
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in picked)


def draw_curves(curves: Mapping[str, Sequence[float]], path: Path, title: str) -> None:
    """Draw curves into one plot, each relative to its first measurement, the default's.

    At most 12 are drawn, those with the largest gains.

    Args:
        curves: By the name of the task.
        path: An .svg or .png file.
        title: Above the plot.

    Raises:
        UsageError: There is nothing to draw, or the file is of another kind.
        MvlmError: matplotlib is not installed.
    """
    if not curves:
        raise UsageError("there is nothing to draw", expected="kernels with several measurements")
    if path.suffix not in (".svg", ".png"):
        raise UsageError("--plot", expected="a file ending in .svg or .png", found=str(path))
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MvlmError("matplotlib is not installed", fix='`pip install "mvlm[bench]"`') from None
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    ordered = sorted(curves.items(), key=lambda item: item[1][-1] / item[1][0])
    for name, curve in ordered[:_MAX_CURVES]:
        shares = [100 * value / curve[0] for value in curve]
        axes.step(range(len(shares)), shares, where="post", label=name, linewidth=1.2)
    axes.set_xlabel("measurements of the kernel")
    axes.set_ylabel("best so far, % of the default's time")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2, loc="upper right")
    figure.savefig(path)
