"""The plot of a comparison, an SVG: growth with context and prompt, threads, and bandwidth."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from mvlm.bench.peers.benchmark import ScenarioResult
from mvlm.bench.peers.catalogue import OURS
from mvlm.bench.peers.comparison import Comparison
from mvlm.bench.peers.goal_check import bandwidth_share, median
from mvlm.runtime.errors import MvlmError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Scenarios by what is on the horizontal axis.
_CONTEXT = {length: f"decode-at-{length}" for length in (100, 500, 1000, 1900)}
_PROMPT = {length: f"prefill-{length}" for length in (64, 256, 1024)}
_THREADS = ("decode-1-thread", "decode")

_COLOURS = ("#0b6e4f", "#b23a48", "#5f6caf", "#c98b2b", "#777777", "#4aa3a2")
_SIZE = (9.0, 5.6)


def require_matplotlib() -> None:
    """Raise MvlmError where it is not installed, before anything is measured.

    Raises:
        MvlmError: It is not.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise MvlmError(
            "the plot cannot be drawn",
            expected="the package matplotlib",
            found="none",
            fix="`pip install 'mvlm[bench]'`",
        ) from None


def draw(comparison: Comparison) -> str:
    """Return the plot as SVG; a panel whose scenarios did not run says so.

    Raises:
        MvlmError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text, and the same numbers make the same file.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "mvlm", "font.size": 9}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=_SIZE, layout="constrained")
        panels = figure.subplots(2, 2)
        names = (OURS, *comparison.peers)
        _lines(panels[0][0], comparison, names, _CONTEXT, "decode, tok/s", "tokens of context")
        _lines(panels[0][1], comparison, names, _PROMPT, "prefill, tok/s", "tokens of the prompt")
        _bars(panels[1][0], names, "decode, tok/s", _grouped(comparison, names, median))
        shares = _grouped(comparison, names, _percent)
        _bars(panels[1][1], names, "decode, % of the read bandwidth", shares)
        lines, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(lines, labels, frameon=False, loc="outside lower center", ncols=len(names))
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _lines(
    axes: Axes,
    comparison: Comparison,
    names: tuple[str, ...],
    scenarios: dict[int, str],
    title: str,
    along: str,
) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(along)
    for name, colour in zip(names, _COLOURS, strict=False):
        points = []
        for length, scenario in scenarios.items():
            result = comparison.result(scenario)
            value = median(result, name) if result else None
            if value is not None:
                points.append((length, value))
        axes.plot([x for x, _ in points], [y for _, y in points], "o-", color=colour, label=name)
    _style_axes(axes)


def _bars(
    axes: Axes, names: tuple[str, ...], title: str, groups: dict[str, list[float | None]]
) -> None:
    axes.set_title(title, loc="left")
    width = 0.8 / len(names)
    for index, (name, colour) in enumerate(zip(names, _COLOURS, strict=False)):
        places = [group + (index - (len(names) - 1) / 2) * width for group in range(len(groups))]
        heights = [values[index] or 0.0 for values in groups.values()]
        axes.bar(places, heights, width * 0.92, color=colour, label=name)
    axes.set_xticks(range(len(groups)), list(groups))
    _style_axes(axes)


def _percent(result: ScenarioResult, name: str) -> float | None:
    share = bandwidth_share(result, name)
    return None if share is None else 100 * share


def _grouped(
    comparison: Comparison,
    names: tuple[str, ...],
    value: Callable[[ScenarioResult, str], float | None],
) -> dict[str, list[float | None]]:
    groups = {}
    for scenario in _THREADS:
        result = comparison.result(scenario)
        if result is not None:
            words = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
            groups[words] = [value(result, name) for name in names]
    return groups


def _style_axes(axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
