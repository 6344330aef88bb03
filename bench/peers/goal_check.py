"""Ratios and shares of what was measured in one run, the goals, and whether they can be judged."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mvlm.bench.machine_load import MAX_OTHERS, MAX_STOLEN
from mvlm.bench.peers.benchmark import ScenarioResult
from mvlm.bench.peers.scenarios import GOALS, Goal

# The tool whose features are float32's.
REFERENCE = "torch"


@dataclass(frozen=True)
class GoalResult:
    """A goal and what was reached.

    Attributes:
        goal: The goal.
        reached: The ratio or share; None where it was not measured.
    """

    goal: Goal
    reached: float | None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None where it was not measured."""
        if self.reached is None:
            return None
        if self.goal.at_least:
            return self.reached >= self.goal.bound
        return self.reached <= self.goal.bound


def check_goals(results: Mapping[str, ScenarioResult]) -> list[GoalResult]:
    """Hold every goal of the scenarios that ran against what was measured."""
    return [GoalResult(goal, _reached(goal, results)) for goal in GOALS if goal.scenario in results]


def disturbances(results: Sequence[ScenarioResult]) -> list[str]:
    """Say in which scenarios the machine was not quiet; no verdict holds then."""
    return [
        f"{result.scenario.name}: others kept {result.load.others:.2f} cores busy, "
        f"{result.load.stolen:.2f} were stolen (at most {MAX_OTHERS:.2f} and {MAX_STOLEN:.2f})"
        for result in results
        if not result.load.is_quiet
    ]


def median(result: ScenarioResult, name: str) -> float | None:
    """Return a tool's median in a scenario, or None where it has no values."""
    tool_result = result.tool_results.get(name)
    return statistics.median(tool_result.values) if tool_result and tool_result.values else None


def ratio(result: ScenarioResult, ours: str, theirs: str) -> float | None:
    """Return how many times better ours is; of memory, which part of theirs it takes."""
    left, right = median(result, ours), median(result, theirs)
    if left is None or right is None:
        return None
    if result.scenario.unit == "ms":
        return right / left
    return left / right


def bandwidth_share(result: ScenarioResult, name: str) -> float | None:
    """Return which part of the memory's bandwidth a tool's reading of weights takes."""
    speed = median(result, name)
    if speed is None or not result.bandwidths:
        return None
    read = result.tool_results[name].facts.get("weight_bytes_per_token")
    if not read:
        return None
    return float(speed * read / statistics.median(result.bandwidths))


def cosine(result: ScenarioResult, name: str) -> float | None:
    """Return the cosine between a tool's features and float32's."""
    tool_results = result.tool_results
    if name not in tool_results or REFERENCE not in tool_results:
        return None
    left, right = tool_results[name].features, tool_results[REFERENCE].features
    if left is None or right is None or left.shape != right.shape:
        return None
    a, b = (values.astype(np.float64).ravel() for values in (left, right))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def kept_under_load(result: ScenarioResult, name: str) -> float | None:
    """Return which part of its speed a tool keeps under load."""
    tool_result = result.tool_results.get(name)
    if tool_result is None or not tool_result.values or not tool_result.baseline:
        return None
    return statistics.median(tool_result.values) / statistics.median(tool_result.baseline)


def _reached(goal: Goal, results: Mapping[str, ScenarioResult]) -> float | None:
    result = results[goal.scenario]
    match goal.measure:
        case "faster" | "memory":
            assert goal.against is not None
            return ratio(result, goal.ours, goal.against)
        case "bandwidth":
            return bandwidth_share(result, goal.ours)
        case "features":
            return cosine(result, goal.ours)
        case "under_load":
            return kept_under_load(result, goal.ours)
        case "kept":
            assert goal.against is not None
            other = results.get(goal.against)
            before = None if other is None else median(other, goal.ours)
            after = median(result, goal.ours)
            return None if before is None or after is None else after / before
