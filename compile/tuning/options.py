"""The options of a tuning run. Imports no tvm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mvlm.runtime.errors import UsageError


@dataclass(frozen=True)
class TuningOptions:
    """The options of a tuning run.

    Attributes:
        trials: Candidates to measure; the defaults and the validation are not counted.
        logs: The folder of logs.
        seed: The search's seed.
        has_cost_model: Whether a cost model ranks the candidates; they are drawn at random if not.
        timeout: Seconds that one measurement may take.
        functions: Substrings of the names of the tasks to tune; all tasks if empty.
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
