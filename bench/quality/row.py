"""A row of the table of SmolLM2: a model that is judged, and its figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mvlm.bench.quality.judgement import IdArray, Judgement
from mvlm.bench.quality.results import StoredSize


@dataclass(frozen=True)
class Bench:
    """What all rows are made of and judged by.

    Attributes:
        folder: Where files are kept.
        checkpoint: SmolLM2 in float32.
        checkpoint_digest: Of its weights.
        sequences: The ids that are judged.
        reference: Float32's logits of them, as `write_logits` writes them.
        reference_digest: Of ids and logits.
        threads: For all tools.
    """

    folder: Path
    checkpoint: Path
    checkpoint_digest: str
    sequences: IdArray
    reference: Path
    reference_digest: str
    threads: int


@dataclass(frozen=True)
class RowFigures:
    """A row's figures.

    Attributes:
        size: What the weights take.
        judgement: What they do.
    """

    size: StoredSize
    judgement: Judgement

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RowFigures:
        """Read what `dataclasses.asdict` made."""
        return cls(StoredSize(**values["size"]), Judgement(**values["judgement"]))


class Row(Protocol):
    """One model that is judged."""

    @property
    def tool(self) -> str:
        """The tool that runs it."""

    @property
    def title(self) -> str:
        """Its type, for the table."""

    @property
    def calibrated(self) -> bool:
        """Whether calibration data have decided how it is rounded."""

    @property
    def speed_name(self) -> str:
        """The name by which speeds are reported."""

    def key(self, bench: Bench) -> str:
        """Name all that the figures depend on."""

    def measure(self, bench: Bench) -> RowFigures:
        """Make the model and judge it."""


def row_name(row: Row) -> str:
    """Return a row's name on the command line: tool, type, and whether it is calibrated."""
    return f"{row.tool} {row.title}" + (" calibrated" if row.calibrated else "")
