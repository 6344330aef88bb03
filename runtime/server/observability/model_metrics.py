"""What is measured of one model's answers: counters and histograms of its name."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from mvlm.runtime.engine.asynchronous import AsyncAnswer

# In seconds: from a small model on a fast machine to a large one on a board.
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_BETWEEN_TOKENS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5)
_COUNTERS = {
    "prompt_tokens": "Tokens of prompts, images' included.",
    "cached_prompt_tokens": "Tokens of prompts that were in the prefix cache.",
    "generation_tokens": "Tokens of answers.",
    "draft_tokens": "Tokens that were drafted and verified.",
    "accepted_draft_tokens": "Drafted tokens that the model chose, too.",
    "preemptions": "Times that an answer's pages were given to others.",
}


class MetricFamilies:
    """The families of all models.

    Args:
        registry: Where they are collected.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counters = {
            name: Counter(f"mvlm_{name}", text, ["model"], registry=registry)
            for name, text in _COUNTERS.items()
        }
        self._first_token = Histogram(
            "mvlm_time_to_first_token_seconds",
            "From an answer's submission to its first token.",
            ["model"],
            registry=registry,
            buckets=_FIRST_TOKEN,
        )
        self._between_tokens = Histogram(
            "mvlm_time_between_tokens_seconds",
            "From one token of an answer to the next.",
            ["model"],
            registry=registry,
            buckets=_BETWEEN_TOKENS,
        )

    def of(self, model: str) -> ModelMetrics:
        """Return the metrics of a model."""
        return ModelMetrics(
            {name: counter.labels(model) for name, counter in self._counters.items()},
            self._first_token.labels(model),
            self._between_tokens.labels(model),
        )


class ModelMetrics:
    """The metrics of one model.

    Args:
        counters: By their names.
        first_token: Seconds to an answer's first token.
        between_tokens: Seconds between its tokens.

    Attributes:
        first_token: The same.
        between_tokens: The same.
    """

    def __init__(
        self, counters: dict[str, Counter], first_token: Histogram, between_tokens: Histogram
    ) -> None:
        self._counters = counters
        self.first_token, self.between_tokens = first_token, between_tokens

    def count(self, groups: Sequence[Sequence[AsyncAnswer]]) -> None:
        """Count what answers took, at their end; those of a group share a prompt."""
        for group in groups:
            stats = group[0].stats
            self._add("prompt_tokens", stats.cached + stats.computed)
            self._add("cached_prompt_tokens", stats.cached)
            for answer in group:
                self._add("generation_tokens", answer.count)
                self._add("draft_tokens", answer.stats.drafted)
                self._add("accepted_draft_tokens", answer.stats.accepted)
                self._add("preemptions", answer.stats.preemptions)

    def _add(self, name: str, value: int) -> None:
        self._counters[name].inc(value)
