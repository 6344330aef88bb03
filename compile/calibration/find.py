"""Finds a job's calibrated matrices in the cache, or calibrates and leaves them there.

Of several processes that need one calibration, such as the weights steps of two layouts, one does
the work; the others wait for it.
"""

from __future__ import annotations

from collections.abc import Callable

from mvlm.compile.calibration.calibrate import Calibration
from mvlm.compile.calibration.memory_estimate import calibration_bytes
from mvlm.compile.calibration.rounded_weights import LayerReport, RoundedWeights
from mvlm.compile.job import CompileJob
from mvlm.compile.memory import check_memory
from mvlm.compile.work_folder import find_or_make, work_folder
from mvlm.runtime.progress import Progress, no_progress

_FOLDER = "calibrations"
_WAITING = "calibrate: waiting for another process"


def find_or_calibrate(
    job: CompileJob,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = lambda text: None,
) -> RoundedWeights:
    """Return the calibrated matrices of a job that is to be calibrated.

    What an earlier calibration with the same key has finished is not done again. While another
    process calibrates for the same key, this one waits.

    Args:
        job: The job.
        progress: Called as the work proceeds; what it raises ends the calibration.
        warn: Called with what the user should know of the data and of the result.

    Raises:
        UsageError: Data are absent, not in their format, or too few; or the cache cannot be used.
        CheckpointError: A weight, or the input of a layer, is not finite.
        TargetError: There is too little memory.
    """
    data = job.calibration_data
    assert data is not None, "the job is not calibrated"
    for text in data.warnings:
        warn(text)
    key = job.calibration_key()
    weights = RoundedWeights(work_folder(_FOLDER, key), key)

    def calibrate() -> dict[str, tuple[LayerReport, ...]]:
        check_memory(calibration_bytes(job, data), "calibrate")
        return Calibration(job, data, weights, progress).run()

    reports = find_or_make(
        weights.folder, weights.reports, calibrate, lambda: progress(_WAITING, 0, 1)
    )
    worse = [each.layer for found in reports.values() for each in found if each.fell_back]
    if worse:
        warn(
            f"{len(worse)} matrices are rounded without calibration, which would have made them "
            f"worse: {', '.join(worse[:3])}{', ...' if len(worse) > 3 else ''}"
        )
    return weights
