"""What a run knows of one task."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mvlm.compile.tuning.allotment import Claim
from mvlm.compile.tuning.log import TaskResult
from mvlm.compile.tuning.measure_candidate import MeasureCandidate
from mvlm.compile.tuning.search_strategy import SearchStrategy
from mvlm.compile.tuning.task import Task


@dataclass
class TaskRecord:
    """What is known of one task.

    Attributes:
        task: The task.
        search: Of its candidates.
        workload: Its line in the log.
        claim: To the next batch.
        trials: TuningRecord in this run.
        default_library: Of the default; None before it is built, and if it cannot be.
        plain_library: Of a function without an oracle, its loops in plain order.
        default_seconds: The default's median; None if it is left out.
        best: The best median so far.
        found: Of what was measured, by its line in the log: the median, the candidate, and its
            library if it was built in this run.
        result: What came of it, once that is decided.
    """

    task: Task
    search: SearchStrategy
    workload: int
    claim: Claim = field(default_factory=lambda: Claim(0.0))
    trials: int = 0
    default_library: Path | None = None
    plain_library: Path | None = None
    default_seconds: float | None = None
    best: float | None = None
    found: dict[int, tuple[float, MeasureCandidate, Path | None]] = field(default_factory=dict)
    result: TaskResult | None = None
