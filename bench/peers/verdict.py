"""Ratios and shares of what was measured in one run, the goals, and whether they can be judged."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mvlm.bench.peers.contest import Outcome
from mvlm.bench.peers.scenarios import GOALS, Goal
from mvlm.bench.quiet import MOST_OTHERS, MOST_STOLEN

# The tool whose features are float32's.
REFERENCE = "torch"


@dataclass(frozen=True)
class Judgement:
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


def judge(outcomes: Mapping[str, Outcome]) -> list[Judgement]:
    """Hold every goal of the scenarios that ran against what was measured."""
    return [
        Judgement(goal, _reached(goal, outcomes)) for goal in GOALS if goal.scenario in outcomes
    ]


def disturbances(outcomes: Sequence[Outcome]) -> list[str]:
    """Say in which scenarios the machine was not quiet; no verdict holds then."""
    return [
        f"{outcome.scenario.name}: others kept {outcome.load.others:.2f} cores busy, "
        f"{outcome.load.stolen:.2f} were stolen (at most {MOST_OTHERS:.2f} and {MOST_STOLEN:.2f})"
        for outcome in outcomes
        if not outcome.load.is_quiet
    ]


def median(outcome: Outcome, name: str) -> float | None:
    """Return a tool's median in a scenario, or None where it has no values."""
    score = outcome.scores.get(name)
    return statistics.median(score.values) if score and score.values else None


def advantage(outcome: Outcome, ours: str, theirs: str) -> float | None:
    """Return how many times better ours is; of memory, which part of theirs it takes."""
    left, right = median(outcome, ours), median(outcome, theirs)
    if left is None or right is None:
        return None
    if outcome.scenario.unit == "ms":
        return right / left
    return left / right


def bandwidth_share(outcome: Outcome, name: str) -> float | None:
    """Return which part of the memory's bandwidth a tool's reading of weights takes."""
    speed = median(outcome, name)
    if speed is None or not outcome.bandwidths:
        return None
    read = outcome.scores[name].facts.get("weight_bytes_per_token")
    if not read:
        return None
    return float(speed * read / statistics.median(outcome.bandwidths))


def cosine(outcome: Outcome, name: str) -> float | None:
    """Return the cosine between a tool's features and float32's."""
    scores = outcome.scores
    if name not in scores or REFERENCE not in scores:
        return None
    left, right = scores[name].features, scores[REFERENCE].features
    if left is None or right is None or left.shape != right.shape:
        return None
    a, b = (values.astype(np.float64).ravel() for values in (left, right))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def kept_beside_busy(outcome: Outcome, name: str) -> float | None:
    """Return which part of its quiet speed a tool keeps."""
    score = outcome.scores.get(name)
    if score is None or not score.values or not score.beside:
        return None
    return statistics.median(score.values) / statistics.median(score.beside)


def _reached(goal: Goal, outcomes: Mapping[str, Outcome]) -> float | None:
    outcome = outcomes[goal.scenario]
    match goal.measure:
        case "faster" | "memory":
            assert goal.against is not None
            return advantage(outcome, goal.ours, goal.against)
        case "bandwidth":
            return bandwidth_share(outcome, goal.ours)
        case "features":
            return cosine(outcome, goal.ours)
        case "busy":
            return kept_beside_busy(outcome, goal.ours)
        case "kept":
            assert goal.against is not None
            other = outcomes.get(goal.against)
            before = None if other is None else median(other, goal.ours)
            after = median(outcome, goal.ours)
            return None if before is None or after is None else after / before
