"""What a run of the tuner is to do. Imports no tvm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mvlm.runtime.errors import UsageError


@dataclass(frozen=True)
class TuningPlan:
    """What to do.

    Attributes:
        trials: Measurements of candidates; the defaults and the last word come on top.
        logs: The folder of logs that is written into.
        seed: Of what is drawn.
        has_cost_model: Whether a model ranks the candidates; they are drawn if not.
        timeout: Seconds that one measurement may take.
        functions: Only tasks with one of these in their names; all if empty.
    """

    trials: int
    logs: Path
    seed: int = 0
    has_cost_model: bool = True
    timeout: float = 60.0
    functions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UsageError("--trials", expected="1 or more", found=self.trials)
        if not 0 < self.timeout < 86_400:
            raise UsageError("--timeout", expected="seconds, above 0", found=self.timeout)
