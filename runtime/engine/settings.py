"""What an engine may take, and how it shares its steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mvlm.runtime.artifact.layout import MOST_FEW_ROWS
from mvlm.runtime.engine.speculation import SPECULATIONS, Speculation
from mvlm.runtime.errors import UsageError
from mvlm.runtime.settings import ChatSettings


@dataclass(frozen=True)
class EngineSettings:
    """An engine's limits.

    Attributes:
        context: Positions of one sequence at the most; the model's if None.
        capacity: Positions of the KV cache, of all sequences and of the prefix cache; one context
            if None.
        image_bytes: Of encoded images that are kept.
        max_running: Sequences that are computed at once; the others wait.
        prefill_rows: Rows of prompts that a step takes at the most while answers are decoded: no
            answer waits longer for its next token than such a step takes, or the encoding of an
            image.
        speculate: Whether tokens are drafted: ``off``, ``ngram``, or ``auto`` where it pays.
    """

    context: int | None = None
    capacity: int | None = None
    image_bytes: int = 256 << 20
    max_running: int = MOST_FEW_ROWS
    prefill_rows: int = 64
    speculate: Speculation = "auto"

    def checked(self, model: ChatSettings) -> EngineSettings:
        """Return the settings with the model's numbers in the place of None.

        Raises:
            UsageError: A value is out of its range.
        """
        context = model.context if self.context is None else self.context
        capacity = context if self.capacity is None else self.capacity
        _check("context", context, 1, model.context)
        _check("capacity", capacity, context, 1 << 30)
        _check("max_running", self.max_running, 1, MOST_FEW_ROWS)
        _check("prefill_rows", self.prefill_rows, MOST_FEW_ROWS, 1 << 20)
        if self.speculate not in SPECULATIONS:
            raise UsageError(
                "speculate", expected=" or ".join(SPECULATIONS), found=repr(self.speculate)
            )
        rows = min(self.prefill_rows, model.prefill_chunk)
        return replace(self, context=context, capacity=capacity, prefill_rows=rows)


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UsageError(name, expected=f"{least} to {most}", found=value)
