"""Shares: each source of calibration data gives about as many positions as any other.

The source that has given the fewest is asked next. So sources have equal shares whatever their
sizes, and where one is used up, the others fill its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mvlm.compile.calibration_data.default_data import DEFAULT_TEXT, typical_pieces
from mvlm.compile.calibration_data.llava_source import LlavaSource
from mvlm.compile.calibration_data.model_input import PromptEncoder
from mvlm.compile.calibration_data.samples import Sample, SourceSummary
from mvlm.compile.calibration_data.text_source import TextSource


@dataclass
class Share:
    """What one source gives.

    Attributes:
        source: The source.
        given: The samples so far.
        positions: Positions of the decoder that they take.
    """

    source: TextSource | LlavaSource
    given: list[Sample] = field(default_factory=list)
    positions: int = 0

    def summary(self) -> SourceSummary:
        """Return what was drawn and what was passed over."""
        return SourceSummary(
            path=self.source.path,
            samples=len(self.given),
            images=sum(len(sample.images) for sample in self.given),
            positions=self.positions,
            skipped=dict(self.source.skipped.counts),
        )

    def warnings(self, tokenizer: PromptEncoder) -> list[str]:
        """Return what the user should know of the source, a sentence each."""
        path, skipped = self.source.path, self.source.skipped
        warnings = []
        if skipped.counts:
            warnings.append(f"{path}: entries passed over: {skipped.describe()}.")
        if skipped.unknown_keys:
            warnings.append(
                f"{path}: passed over keys that are not understood: {_few(skipped.unknown_keys)}."
            )
        if path != DEFAULT_TEXT:
            language = self.source.pieces.warning(str(path), typical_pieces(tokenizer))
            warnings += [] if language is None else [language]
        return warnings


def draw(shares: Sequence[Share], tokens: int, image_tokens: int) -> tuple[Sample, ...]:
    """Take samples until there are enough, or all sources are used up.

    Args:
        shares: The sources, of which nothing was taken yet.
        tokens: Positions of the decoder that are enough.
        image_tokens: Positions that an image takes.

    Returns:
        The samples in the order in which they were taken.
    """
    samples: list[Sample] = []
    waiting = [(share, share.source.samples()) for share in shares]
    while waiting and sum(share.positions for share in shares) < tokens:
        least = min(range(len(waiting)), key=lambda i: waiting[i][0].positions)
        share, source = waiting[least]
        sample = next(source, None)
        if sample is None:
            del waiting[least]
            continue
        share.given.append(sample)
        share.positions += sample.positions(image_tokens)
        samples.append(sample)
    return tuple(samples)


def _few(names: set[str], most: int = 5) -> str:
    shown = [f"{name!r:.40}" for name in sorted(names)[:most]]
    return ", ".join(shown + ["..."] * (len(names) > most))
