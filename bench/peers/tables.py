"""A comparison as rows of text, for the terminal and for the documentation alike."""

from __future__ import annotations

import statistics

from mvlm.bench.peers.catalogue import OURS, PEERS
from mvlm.bench.peers.comparison import Comparison
from mvlm.bench.peers.contest import Outcome
from mvlm.bench.peers.scenarios import OURS_16, SCENARIOS, Goal
from mvlm.bench.peers.verdict import advantage, bandwidth_share, kept_beside_busy, median

Rows = list[list[str]]
_NOTHING = "–"  # noqa: RUF001
_BUILDS = {OURS: "8-bit tower", OURS_16: "16-bit tower"}


def speeds(comparison: Comparison) -> Rows:
    """Medians of every tool, and how many times better ours is; the header first."""
    rows = [["", OURS, *comparison.peers]]
    for outcome in comparison.outcomes:
        builds = outcome.scenario.ours
        for build in builds:
            title = outcome.scenario.title
            if len(builds) > 1:
                title += f", {_BUILDS[build]}"
            cells = [_value(outcome, build)]
            cells += [_peer_cell(outcome, build, peer) for peer in comparison.peers]
            rows.append([title, *cells])
        if outcome.bandwidths:
            rows.append(["   of the read bandwidth", *_shares(outcome, comparison.peers)])
        if any(score.beside for score in outcome.scores.values()):
            rows.append(["   of the speed alone", *_kept(outcome, comparison.peers)])
    return rows


def goals(comparison: Comparison) -> Rows:
    """Every goal, what was reached, and whether that is enough; the header first."""
    rows = [["goal", "wanted", "reached", ""]]
    for judgement in comparison.judgements:
        goal = judgement.goal
        reached = _NOTHING if judgement.reached is None else _ratio(goal, judgement.reached)
        met = {True: "met", False: "missed", None: "not measured"}[judgement.is_met]
        sign = ">=" if goal.at_least else "<="
        rows.append([describe(goal), f"{sign} {_ratio(goal, goal.bound)}", reached, met])
    return rows


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """The circumstances, by name."""
    machine = comparison.machine
    loads = ", ".join(f"{machine[key][0]:.1f}" for key in ("load_before", "load_after"))
    rows = [
        ("machine", f"{machine['cpu']}, {machine['cores']} cores, load before and after {loads}"),
        ("run", f"{comparison.rounds} rounds in turns, {comparison.threads} threads, medians"),
    ]
    for name, said in comparison.facts.items():
        versions = ", ".join(f"{key} {value}" for key, value in said["versions"].items())
        rows.append((name, f"{stored(name, said)}; {versions}"))
        if "system_info" in said:
            rows.append(("", said["system_info"]))
    bandwidths = [each for outcome in comparison.outcomes for each in outcome.bandwidths]
    if bandwidths:
        low, high = (f"{value / 1e9:.1f}" for value in (min(bandwidths), max(bandwidths)))
        middle = f"{statistics.median(bandwidths) / 1e9:.1f}"
        rows.append(("bandwidth", f"{middle} GB/s read, {low} to {high}, beside the decoding"))
    repeated = sum(outcome.repeated for outcome in comparison.outcomes)
    if repeated:
        rows.append(("repeated", f"{repeated} rounds, which other processes had disturbed"))
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
            return f"{title}: times {goal.against}'s speed"
        case "memory":
            return f"{title}: part of {goal.against}'s"
        case "bandwidth":
            return f"{title}: part of the read bandwidth"
        case "features":
            return f"{title}: cosine of features to float32's"
        case "kept":
            assert goal.against is not None
            return f"{title}: part of the speed of `{goal.against}`"
        case "busy":
            return f"{title}: part of the speed alone"


def _ratio(goal: Goal, value: float) -> str:
    if goal.measure == "faster":
        return f"{value:.2f}x"
    if goal.measure == "features":
        return f"{value:.4f}"
    if goal.measure == "memory":
        return f"{value:.2f}"
    return f"{value:.0%}"


def _value(outcome: Outcome, name: str) -> str:
    middle = median(outcome, name)
    if middle is None:
        failed = name in outcome.scores and outcome.scores[name].failure
        return "failed" if failed else _NOTHING
    if outcome.scenario.unit == "bytes":
        return f"{middle / 1e9:.2f} GB"
    digits = 0 if middle >= 100 else 1
    return f"{middle:,.{digits}f} {outcome.scenario.unit}"


def _peer_cell(outcome: Outcome, build: str, peer: str) -> str:
    value, times = _value(outcome, peer), advantage(outcome, build, peer)
    if times is None:
        return value
    return f"{value} ({times:.2f}{'' if outcome.scenario.unit == 'bytes' else 'x'})"


def _shares(outcome: Outcome, peers: tuple[str, ...]) -> list[str]:
    return [_percent(bandwidth_share(outcome, name)) for name in (OURS, *peers)]


def _kept(outcome: Outcome, peers: tuple[str, ...]) -> list[str]:
    return [_percent(kept_beside_busy(outcome, name)) for name in (OURS, *peers)]


def _percent(share: float | None) -> str:
    return _NOTHING if share is None else f"{share:.0%}"
