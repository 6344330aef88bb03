"""The tables of docs/quantization.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mvlm.bench.peers.catalogue import OURS
from mvlm.bench.quality.bundled_model import BundledFigures, Candidate
from mvlm.bench.quality.row import Row, RowFigures
from mvlm.bench.quality.speeds import Speed
from mvlm.models.quantization import SCHEMES

_NOTHING = "–"  # noqa: RUF001
_NOT_MEASURED = Speed(None, None)


def quality_table(
    rows: Sequence[tuple[Row, RowFigures]], speeds: Mapping[str, Speed], default: str
) -> str:
    """Write the rows of SmolLM2 as Markdown, those with the fewest bits in the layers last.

    Args:
        rows: Rows with their figures.
        speeds: By the rows' speed names.
        default: The speed name of what `mvlm compile` makes unless told otherwise.
    """
    lines = [
        "| | calibrated | bits a weight, layers | layers stored as | embedding, head "
        "| bits a weight, all | all weights | perplexity | KL, nats | same top token "
        "| decode | prefill |",
        "|---|---|--:|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row, figures in sorted(rows, key=lambda each: -each[1].size.layer_bits):
        lines.append(
            _quality_line(row, figures, speeds.get(row.speed_name, _NOT_MEASURED), default)
        )
    return "\n".join(lines) + "\n"


def bundled_table(rows: Sequence[tuple[Candidate, BundledFigures]]) -> str:
    """Write the bundled model's rows as Markdown."""
    lines = [
        "| scheme | rounding | KV cache | bits a weight | weights | right answers | perplexity "
        "| KL, nats |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for candidate, figures in rows:
        name = f"**`{candidate.scheme}`**" if candidate.is_default else f"`{candidate.scheme}`"
        is_integer = SCHEMES[candidate.scheme].weights.is_integer
        lines.append(
            f"| {name} | {candidate.rounding if is_integer else ''} "
            f"| {candidate.cache} | {figures.bits_per_weight:g} "
            f"| {figures.weight_bytes / 1e6:.2f} MB "
            f"| {100 * figures.accuracy:.1f} % | {figures.perplexity:.4f} "
            f"| {figures.divergence:.2e} |"
        )
    return "\n".join(lines) + "\n"


def _quality_line(row: Row, figures: RowFigures, speed: Speed, default: str) -> str:
    size, judged = figures.size, figures.judgement
    name = f"{row.tool} {row.title}" if row.tool != OURS else f"`{row.title}`"
    if row.speed_name == default and not row.calibrated:
        name = f"**{name}**"
    return (
        f"| {name} | {'yes' if row.calibrated else ''} | {size.layer_bits:.2f} | {size.layers} "
        f"| {size.ends} | {size.all_bits:.2f} | {size.nbytes / 1e6:.0f} MB "
        f"| {judged.perplexity:.2f} | {judged.divergence:.4f} | {100 * judged.same_top:.1f} % "
        f"| {_times(speed.decode)} | {_times(speed.prefill)} |"
    )


def _times(ratio: float | None) -> str:
    return _NOTHING if ratio is None else f"{ratio:.2f}x"
