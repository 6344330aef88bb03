"""Estimates the peak memory of measuring a model's layers. Imports no tvm."""

from __future__ import annotations

from dataclasses import replace

from mvlm.compile.bits.samples import planning_samples
from mvlm.compile.calibration.memory_estimate import calibration_bytes
from mvlm.compile.calibration_data.samples import CalibrationData, SourceSummary
from mvlm.compile.job import CompileJob
from mvlm.models.quantization import UNITS, plan_quantization

_FLOAT32 = 4
# Of a matrix of the model's largest unit: read, joined, rounded and arranged, and what rounding
# takes for some of its rows.
_MATRIX_COPIES = 6
# Of a sequence's logits: the exact ones of all sequences are kept, and these come on top.
_LOGITS_COPIES = 3


def measuring_bytes(job: CompileJob) -> int:
    """Estimate the peak of measuring what rounding costs each unit of a job's model."""
    config = job.config
    language, tokens = config.language, config.image_tokens
    samples = planning_samples(job.planning_data, tokens)
    lengths = [each.positions(tokens) for each in samples]
    images = sum(len(each.images) for each in samples)
    summary = SourceSummary(job.checkpoint, len(samples), images, sum(lengths))
    running = calibration_bytes(
        replace(job, quantization=plan_quantization("q0f32")), CalibrationData(samples, (summary,))
    )
    rows = language.num_hidden_layers + len(UNITS)
    head = language.vocab_size * language.hidden_size
    logits = language.vocab_size * (sum(lengths) + _LOGITS_COPIES * max(lengths))
    matrices = _MATRIX_COPIES * max(language.unit_weights().values())
    floats = rows * sum(lengths) * language.hidden_size + 2 * head + logits + matrices
    return running + _FLOAT32 * floats
