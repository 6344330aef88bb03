"""A comparison as rows of text, for the terminal and for the documentation alike."""

from __future__ import annotations

import statistics

from mvlm.bench.peers.benchmark import ScenarioResult
from mvlm.bench.peers.catalogue import OURS, PEERS
from mvlm.bench.peers.comparison import Comparison
from mvlm.bench.peers.goal_check import bandwidth_share, kept_under_load, median, ratio
from mvlm.bench.peers.scenarios import OURS_16, SCENARIOS, Goal

Rows = list[list[str]]
_NOTHING = "–"  # noqa: RUF001
_BUILDS = {OURS: "8-bit tower", OURS_16: "16-bit tower"}


def speeds(comparison: Comparison) -> Rows:
    """Medians of every tool, and how many times better ours is; the header first."""
    rows = [["", OURS, *comparison.peers]]
    for result in comparison.results:
        builds = result.scenario.ours
        for build in builds:
            title = result.scenario.title
            if len(builds) > 1:
                title += f", {_BUILDS[build]}"
            cells = [_value(result, build)]
            cells += [_peer_cell(result, build, peer) for peer in comparison.peers]
            rows.append([title, *cells])
        if result.bandwidths:
            rows.append(["   share of the read bandwidth", *_shares(result, comparison.peers)])
        if any(tool_result.baseline for tool_result in result.tool_results.values()):
            rows.append(["   share of the speed without load", *_kept(result, comparison.peers)])
    return rows


def goals(comparison: Comparison) -> Rows:
    """Every goal, what was reached, and whether that is enough; the header first."""
    rows = [["goal", "required", "reached", ""]]
    for goal_result in comparison.goal_results:
        goal = goal_result.goal
        reached = _NOTHING if goal_result.reached is None else _ratio(goal, goal_result.reached)
        met = {True: "met", False: "missed", None: "not measured"}[goal_result.is_met]
        sign = ">=" if goal.at_least else "<="
        rows.append([describe(goal), f"{sign} {_ratio(goal, goal.bound)}", reached, met])
    return rows


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """The circumstances, by name."""
    machine = comparison.machine
    loads = ", ".join(f"{machine[key][0]:.1f}" for key in ("load_before", "load_after"))
    rows = [
        ("machine", f"{machine['cpu']}, {machine['cores']} cores, load before and after {loads}"),
        ("run", f"{comparison.rounds} interleaved rounds, {comparison.threads} threads, medians"),
    ]
    for name, said in comparison.facts.items():
        versions = ", ".join(f"{key} {value}" for key, value in said["versions"].items())
        rows.append((name, f"{stored(name, said)}; {versions}"))
        if "system_info" in said:
            rows.append(("", said["system_info"]))
    bandwidths = [each for result in comparison.results for each in result.bandwidths]
    if bandwidths:
        low, high = (f"{value / 1e9:.1f}" for value in (min(bandwidths), max(bandwidths)))
        middle = f"{statistics.median(bandwidths) / 1e9:.1f}"
        rows.append(("bandwidth", f"{middle} GB/s read, {low} to {high}, during decoding"))
    repeated = sum(result.repeated for result in comparison.results)
    if repeated:
        rows.append(("repeated", f"{repeated} rounds, disturbed by other processes"))
    return rows


def stored(name: str, said: dict[str, object]) -> str:
    """How a tool keeps the weights, in words."""
    if name in PEERS:
        return PEERS[name].stored
    schemes = said.get("quantization")
    if not isinstance(schemes, dict):
        return _NOTHING
    return ", ".join(f"{part} {scheme}" for part, scheme in schemes.items())


def describe(goal: Goal) -> str:
    """A goal in words."""
    title = SCENARIOS[goal.scenario].title
    if len(SCENARIOS[goal.scenario].ours) > 1:
        title += f", {_BUILDS[goal.ours]}"
    match goal.measure:
        case "faster":
            return f"{title}: speedup over {goal.against}"
        case "memory":
            return f"{title}: share of {goal.against}'s"
        case "bandwidth":
            return f"{title}: share of the read bandwidth"
        case "features":
            return f"{title}: cosine of features to float32's"
        case "kept":
            assert goal.against is not None
            return f"{title}: share of `{goal.against}`'s speed"
        case "under_load":
            return f"{title}: share of the speed without load"


def _ratio(goal: Goal, value: float) -> str:
    if goal.measure == "faster":
        return f"{value:.2f}x"
    if goal.measure == "features":
        return f"{value:.4f}"
    if goal.measure == "memory":
        return f"{value:.2f}"
    return f"{value:.0%}"


def _value(result: ScenarioResult, name: str) -> str:
    middle = median(result, name)
    if middle is None:
        failed = name in result.tool_results and result.tool_results[name].failure
        return "failed" if failed else _NOTHING
    if result.scenario.unit == "bytes":
        return f"{middle / 1e9:.2f} GB"
    digits = 0 if middle >= 100 else 1
    return f"{middle:,.{digits}f} {result.scenario.unit}"


def _peer_cell(result: ScenarioResult, build: str, peer: str) -> str:
    value, times = _value(result, peer), ratio(result, build, peer)
    if times is None:
        return value
    return f"{value} ({times:.2f}{'' if result.scenario.unit == 'bytes' else 'x'})"


def _shares(result: ScenarioResult, peers: tuple[str, ...]) -> list[str]:
    return [_percent(bandwidth_share(result, name)) for name in (OURS, *peers)]


def _kept(result: ScenarioResult, peers: tuple[str, ...]) -> list[str]:
    return [_percent(kept_under_load(result, name)) for name in (OURS, *peers)]


def _percent(share: float | None) -> str:
    return _NOTHING if share is None else f"{share:.0%}"
