"""Tables of how many answers were right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.examination.examine import Outcome


def accuracy(outcomes: Iterable[Outcome]) -> float:
    """The share of right answers, in percent."""
    verdicts = [outcome.is_right for outcome in outcomes]
    return 100 * sum(verdicts) / len(verdicts)


def table(outcomes: Sequence[Outcome], trait: str) -> str:
    """Accuracy by a trait, a line a value and a column a model, in Markdown."""
    models = list(dict.fromkeys(outcome.model for outcome in outcomes))
    rights: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for outcome in outcomes:
        for value in (outcome.traits[trait], "all"):
            counts[value, outcome.model] += 1
            rights[value, outcome.model] += outcome.is_right
    values = [*sorted({value for value, _ in counts} - {"all"}, key=_order), "all"]
    lines = [
        f"| {trait:<16} | questions | {' | '.join(f'{model:>7}' for model in models)} |",
        f"|{'-' * 18}|----------:|{'|'.join('-' * 8 + ':' for _ in models)}|",
    ]
    for value in values:
        shares = [100 * rights[value, model] / counts[value, model] for model in models]
        cells = " | ".join(f"{share:5.1f} %" for share in shares)
        lines.append(f"| {value:<16} | {counts[value, models[0]]:9} | {cells} |")
    return "\n".join(lines)


def _order(value: str) -> tuple[float, str]:
    """Numbers by their size, words by the alphabet."""
    number = re.match(r"[\d.]+", value)
    return (float(number[0]) if number else 0, value)


def summary(outcomes: Sequence[Outcome], traits: Sequence[str], wrong: int = 15) -> str:
    """The tables of some traits, and the first wrong answers."""
    parts = [table(outcomes, trait) for trait in traits]
    failures = [outcome for outcome in outcomes if not outcome.is_right]
    lines = [
        f"{o.model}, image {o.image} ({', '.join(o.traits.values())}): {o.question}"
        f" -> {o.answer} ({o.expected})"
        for o in failures[:wrong]
    ]
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])
