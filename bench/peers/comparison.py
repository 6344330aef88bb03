"""The result of a whole run, as programs read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mvlm.bench.machine_load import MAX_OTHERS, MAX_STOLEN
from mvlm.bench.peers.benchmark import ScenarioResult
from mvlm.bench.peers.catalogue import OURS
from mvlm.bench.peers.goal_check import (
    GoalResult,
    bandwidth_share,
    check_goals,
    cosine,
    disturbances,
    kept_under_load,
    ratio,
)
from mvlm.bench.report import Spread

# The five speeds of `bench --json`, and the scenarios that they are taken from.
_STATS = {
    "vision_ms": "vision",
    "prefill_tok_s": "prefill-256",
    "decode_tok_s": "decode",
    "first_token_ms": "first-token",
    "peak_rss_bytes": "memory-image",
}


@dataclass(frozen=True)
class Comparison:
    """What was measured, in what circumstances.

    Attributes:
        model: The checkpoint's name.
        threads: That the tools computed on, where a scenario does not say otherwise.
        rounds: That count.
        peers: The other tools' names.
        results: Of the scenarios that ran.
        machine: CPU, cores, memory, load.
        command: What runs it again.
    """

    model: str
    threads: int
    rounds: int
    peers: tuple[str, ...]
    results: tuple[ScenarioResult, ...]
    machine: dict[str, Any]
    command: str

    def result(self, name: str) -> ScenarioResult | None:
        """Return a scenario's result, or None if it did not run."""
        return next((each for each in self.results if each.scenario.name == name), None)

    @property
    def goal_results(self) -> list[GoalResult]:
        """The goals of the scenarios that ran."""
        return check_goals({result.scenario.name: result for result in self.results})

    @property
    def disturbances(self) -> list[str]:
        """Why there can be no verdict; empty if there can."""
        return disturbances(self.results)

    @property
    def failures(self) -> list[str]:
        """What went wrong in a tool, by scenario."""
        return [
            f"{result.scenario.name}: {tool_result.failure}"
            for result in self.results
            for tool_result in result.tool_results.values()
            if tool_result.failure
        ]

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """What each tool says of itself."""
        return {
            name: tool_result.facts
            for result in self.results
            for name, tool_result in result.tool_results.items()
            if tool_result.facts
        }

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return self._stats(OURS) | {
            "peers": {
                peer: self._stats(peer) | {"ratio": self._ratios(peer)} for peer in self.peers
            },
            "model": self.model,
            "threads": self.threads,
            "rounds": self.rounds,
            "command": self.command,
            "machine": self.machine,
            "systems": self.facts,
            "scenarios": [_scenario(result) for result in self.results],
            "quiet": {
                "is_quiet": not self.disturbances,
                "max_others": MAX_OTHERS,
                "max_stolen": MAX_STOLEN,
                "reasons": self.disturbances,
            },
            "goals": [_goal(each, bool(self.disturbances)) for each in self.goal_results],
            "failures": self.failures,
        }

    def _stats(self, name: str) -> dict[str, Any]:
        stats: dict[str, Any] = {}
        for stat, scenario in _STATS.items():
            result = self.result(scenario)
            tool_result = result.tool_results.get(name) if result else None
            stats[stat] = (
                vars(Spread.of(tool_result.values)) if tool_result and tool_result.values else None
            )
        return stats

    def _ratios(self, peer: str) -> dict[str, float | None]:
        found = {stat: self.result(scenario) for stat, scenario in _STATS.items()}
        return {
            stat: None if result is None else ratio(result, OURS, peer)
            for stat, result in found.items()
        }


def _scenario(result: ScenarioResult) -> dict[str, Any]:
    scenario = result.scenario
    return {
        "name": scenario.name,
        "title": scenario.title,
        "unit": scenario.unit,
        "threads": result.threads,
        "order": result.order,
        "repeated_rounds": result.repeated,
        "load": vars(result.load) | {"is_quiet": result.load.is_quiet},
        "read_bandwidth_bytes_s": vars(Spread.of(result.bandwidths)) if result.bandwidths else None,
        "systems": {name: _tool_result(result, name) for name in result.tool_results},
    }


def _tool_result(result: ScenarioResult, name: str) -> dict[str, Any]:
    tool_result = result.tool_results[name]
    return {
        "values": tool_result.values,
        "spread": vars(Spread.of(tool_result.values)) if tool_result.values else None,
        "alone": tool_result.baseline or None,
        "kept_under_load": kept_under_load(result, name),
        "bandwidth_share": bandwidth_share(result, name),
        "features_cosine": cosine(result, name),
        "failure": tool_result.failure,
    }


def _goal(goal_result: GoalResult, disturbed: bool) -> dict[str, Any]:
    return vars(goal_result.goal) | {
        "at_least": goal_result.goal.at_least,
        "reached": goal_result.reached,
        "is_met": None if disturbed else goal_result.is_met,
    }
