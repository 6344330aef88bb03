"""The result of a whole run, as programs read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mvlm.bench.peers.catalogue import OURS
from mvlm.bench.peers.contest import Outcome
from mvlm.bench.peers.verdict import (
    Judgement,
    advantage,
    bandwidth_share,
    cosine,
    disturbances,
    judge,
    kept_beside_busy,
)
from mvlm.bench.quiet import MOST_OTHERS, MOST_STOLEN
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
        outcomes: Of the scenarios that ran.
        machine: CPU, cores, memory, load.
        command: What runs it again.
    """

    model: str
    threads: int
    rounds: int
    peers: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    machine: dict[str, Any]
    command: str

    def outcome(self, name: str) -> Outcome | None:
        """Return a scenario's outcome, or None if it did not run."""
        return next((each for each in self.outcomes if each.scenario.name == name), None)

    @property
    def judgements(self) -> list[Judgement]:
        """The goals of the scenarios that ran."""
        return judge({outcome.scenario.name: outcome for outcome in self.outcomes})

    @property
    def disturbances(self) -> list[str]:
        """Why there can be no verdict; empty if there can."""
        return disturbances(self.outcomes)

    @property
    def failures(self) -> list[str]:
        """What went wrong in a tool, by scenario."""
        return [
            f"{outcome.scenario.name}: {score.failure}"
            for outcome in self.outcomes
            for score in outcome.scores.values()
            if score.failure
        ]

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """What each tool says of itself."""
        return {
            name: score.facts
            for outcome in self.outcomes
            for name, score in outcome.scores.items()
            if score.facts
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
            "scenarios": [_scenario(outcome) for outcome in self.outcomes],
            "quiet": {
                "is_quiet": not self.disturbances,
                "most_others": MOST_OTHERS,
                "most_stolen": MOST_STOLEN,
                "reasons": self.disturbances,
            },
            "goals": [_goal(each, bool(self.disturbances)) for each in self.judgements],
            "failures": self.failures,
        }

    def _stats(self, name: str) -> dict[str, Any]:
        stats: dict[str, Any] = {}
        for stat, scenario in _STATS.items():
            outcome = self.outcome(scenario)
            score = outcome.scores.get(name) if outcome else None
            stats[stat] = vars(Spread.of(score.values)) if score and score.values else None
        return stats

    def _ratios(self, peer: str) -> dict[str, float | None]:
        found = {stat: self.outcome(scenario) for stat, scenario in _STATS.items()}
        return {
            stat: None if outcome is None else advantage(outcome, OURS, peer)
            for stat, outcome in found.items()
        }


def _scenario(outcome: Outcome) -> dict[str, Any]:
    scenario = outcome.scenario
    return {
        "name": scenario.name,
        "title": scenario.title,
        "unit": scenario.unit,
        "threads": outcome.threads,
        "order": outcome.order,
        "repeated_rounds": outcome.repeated,
        "load": vars(outcome.load) | {"is_quiet": outcome.load.is_quiet},
        "read_bandwidth_bytes_s": vars(Spread.of(outcome.bandwidths))
        if outcome.bandwidths
        else None,
        "systems": {name: _score(outcome, name) for name in outcome.scores},
    }


def _score(outcome: Outcome, name: str) -> dict[str, Any]:
    score = outcome.scores[name]
    return {
        "values": score.values,
        "spread": vars(Spread.of(score.values)) if score.values else None,
        "alone": score.beside or None,
        "kept_beside_busy": kept_beside_busy(outcome, name),
        "bandwidth_share": bandwidth_share(outcome, name),
        "features_cosine": cosine(outcome, name),
        "failure": score.failure,
    }


def _goal(judgement: Judgement, disturbed: bool) -> dict[str, Any]:
    return vars(judgement.goal) | {
        "at_least": judgement.goal.at_least,
        "reached": judgement.reached,
        "is_met": None if disturbed else judgement.is_met,
    }
