"""Gives a job its plan of bits, measured before or now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mvlm.compile.bits.choose import choose_plan
from mvlm.compile.bits.losses import LayerLosses, LossFolder
from mvlm.compile.bits.memory_estimate import measuring_bytes
from mvlm.compile.bits.sensitivity import Sensitivity
from mvlm.compile.job import CompileJob
from mvlm.compile.memory import check_memory
from mvlm.compile.work_folder import find_or_make, work_folder
from mvlm.models.quantization import (
    LEAST_BITS,
    MOST_BITS,
    PLAN_SCHEMES,
    UNITS,
    BitPlan,
    LayerPlan,
)
from mvlm.runtime.progress import Progress, no_progress

_FOLDER = "sensitivities"
_WAITING = "measure layers: waiting for another process"


def find_or_measure(
    job: CompileJob,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = lambda text: None,
) -> tuple[LayerLosses, ...]:
    """Return what each scheme costs each unit of a checkpoint's layers.

    It depends on the checkpoint and the data alone: it is measured once for all quantizations and
    devices. What an earlier measurement has finished is not done again.

    Args:
        job: The job.
        progress: Called as the work proceeds; what it raises ends the measurement.
        warn: Called with what the user should know of the data.

    Raises:
        UsageError: Data are absent, not in their format, or too few; or the cache cannot be used.
        CheckpointError: A weight, or what the model computes, is not finite.
        TargetError: There is too little memory.
    """
    if job.calibration is None:  # else calibration warns
        for text in job.planning_data.warnings:
            warn(text)
    key = job.sensitivity_key()
    output = LossFolder(work_folder(_FOLDER, key), key)
    layers = job.config.language.num_hidden_layers

    def measure() -> tuple[LayerLosses, ...]:
        check_memory(measuring_bytes(job), "measure the layers of")
        return Sensitivity(job, output, progress).run()

    return find_or_make(
        output.folder,
        lambda: output.read_all(layers),
        measure,
        lambda: progress(_WAITING, 0, 1),
    )


def with_plan(
    job: CompileJob,
    progress: Progress = no_progress,
    warn: Callable[[str], None] = lambda text: None,
) -> CompileJob:
    """Return a job with the plan of bits that it asks for; the same job where it asks for none.

    Args:
        job: The job.
        progress: Called as the work proceeds; what it raises ends it.
        warn: Called with what the user should know of the data.

    Raises:
        MvlmError: See :func:`find_or_measure`.
    """
    bits, language = job.quantization.bits, job.config.language
    if bits is None:
        return job
    if bits in (LEAST_BITS, MOST_BITS):  # there is nothing to choose
        scheme = PLAN_SCHEMES[0 if bits == LEAST_BITS else -1]
        layer = LayerPlan(**dict.fromkeys(UNITS, scheme))
        plan = BitPlan((layer,) * language.num_hidden_layers)
    else:
        losses = find_or_measure(job, progress, warn)
        plan = choose_plan(losses, language.unit_weights(), bits)
    return replace(job, quantization=job.quantization.with_plan(plan))
