"""Finds a job's calibrated matrices in the cache, or calibrates and leaves them there.

Of several processes that need one calibration, such as the weights steps of two layouts, one does
the work; the others wait for it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mvlm.compile.cache_folder import KEEP_ELSEWHERE, cache_folder
from mvlm.compile.calibration.calibrate import Calibration
from mvlm.compile.calibration.memory_estimate import calibration_bytes
from mvlm.compile.calibration.rounded_weights import RoundedWeights
from mvlm.compile.job import CompileJob
from mvlm.compile.memory import check_memory
from mvlm.runtime.errors import UsageError
from mvlm.runtime.progress import Progress, no_progress

_FOLDER = "calibrations"
# Enough of the key that no two calibrations meet.
_KEY_DIGITS = 16
_LOCK = "lock"
_WAITING = "calibrate: waiting for another process"
_POLL_SECONDS = 0.2


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
    folder = cache_folder() / _FOLDER / key[:_KEY_DIGITS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None
    weights = RoundedWeights(folder, key)
    reports = weights.reports()
    if reports is None:
        with _locked(folder, progress):
            reports = weights.reports()  # another process may have finished meanwhile
            if reports is None:
                check_memory(calibration_bytes(job, data), "calibrate")
                reports = Calibration(job, data, weights, progress).run()
    worse = [each.layer for found in reports.values() for each in found if each.fell_back]
    if worse:
        warn(
            f"{len(worse)} matrices are rounded without calibration, which would have made them "
            f"worse: {', '.join(worse[:3])}{', ...' if len(worse) > 3 else ''}"
        )
    return weights


@contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[None]:
    """Within the block, be the only process that calibrates into a folder.

    The system releases the lock when its holder ends, however it ends. The file stays: a process
    that waits has it open.
    """
    try:
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        while not _acquired(lock):
            progress(_WAITING, 0, 1)
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(lock)


def _acquired(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks, as some network mounts are. The lock saves work only: files
        # are written whole, and two calibrations with one key write the same ones.
        return True
    return True


def _unusable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"the cache folder {folder} cannot be used", found=error.strerror, fix=KEEP_ELSEWHERE
    )
