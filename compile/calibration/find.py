"""Finds a job's calibrated matrices in the cache, or calibrates and leaves them there."""

from __future__ import annotations

from collections.abc import Callable

from mvlm.compile.cache_folder import KEEP_ELSEWHERE, cache_folder
from mvlm.compile.calibration.calibrate import Calibration
from mvlm.compile.calibration.rounded_weights import RoundedWeights
from mvlm.compile.job import CompileJob
from mvlm.runtime.errors import UsageError
from mvlm.runtime.progress import Progress, no_progress

_FOLDER = "calibrations"
# Enough of the key that no two calibrations meet.
_KEY_DIGITS = 16


def find_or_calibrate(
    job: CompileJob,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = lambda text: None,
) -> RoundedWeights:
    """Return the calibrated matrices of a job that is to be calibrated.

    What an earlier calibration with the same key has finished is not done again.

    Args:
        job: The job.
        progress: Called as the work proceeds; what it raises ends the calibration.
        warn: Called with what the user should know of the data and of the result.

    Raises:
        UsageError: Data are absent, not in their format, or too few; or the cache cannot be used.
        CheckpointError: A weight, or the input of a layer, is not finite.
    """
    data = job.calibration_data
    assert data is not None, "the job is not calibrated"
    for text in data.warnings:
        warn(text)
    key = job.calibration_key()
    folder = cache_folder() / _FOLDER / key[:_KEY_DIGITS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the cache folder {folder} cannot be used",
            found=error.strerror,
            fix=KEEP_ELSEWHERE,
        ) from None
    weights = RoundedWeights(folder, key)
    reports = weights.reports()
    if reports is None:
        reports = Calibration(job, data, weights, progress).run()
    worse = [each.layer for found in reports.values() for each in found if each.fell_back]
    if worse:
        warn(
            f"{len(worse)} matrices are rounded without calibration, which would have made them "
            f"worse: {', '.join(worse[:3])}{', ...' if len(worse) > 3 else ''}"
        )
    return weights
