"""Estimates the peak memory of a calibration without building the model. Imports no tvm."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mvlm.compile.calibration import group_search
from mvlm.compile.calibration.matrix_rounding import ROWS
from mvlm.compile.calibration.selection import is_calibrated
from mvlm.compile.calibration_data.samples import CalibrationData
from mvlm.compile.job import CompileJob
from mvlm.compile.memory import PROGRAM_BYTES
from mvlm.models.checkpoint import expected_tensors
from mvlm.models.checkpoint.names import HEAD, TABLE
from mvlm.models.config import MobileVLMConfig
from mvlm.models.quantization import GROUP_SIZE
from mvlm.runtime.threads import default_threads

_FLOAT32 = 4
# What rounding a matrix (N, K) takes, in float32 copies of the matrix, of the rows that are rounded
# at a time, and of the moments (K, K): rounding itself, and before it the inversion of the moments
# in float64. tracemalloc finds (1.5, 8.5, 2) and (1, 0, 9); LAPACK's own copy, which it does not
# see, comes on top.
_ROUNDING_COPIES = (2, 9, 3)
_INVERSION_COPIES = (1, 0, 12)
# What each thread takes to round a group of some rows again, in copies of all candidates.
_CANDIDATE_COPIES = 4
# Tensors that the model joins to one linear layer.
_JOINED = re.compile(r"\b(?:[qkv]_proj|(?:gate|up)_proj)\b")
_DECODER, _TOWER_LAYERS = "model.layers.", ".encoder.layers."


@dataclass(frozen=True)
class _Layer:
    """A linear layer's matrix ``(rows, width)``."""

    rows: int
    width: int


def calibration_bytes(job: CompileJob, data: CalibrationData) -> int:
    """Estimate the peak of calibrating.

    Args:
        job: The model, and what its parts are stored as.
        data: What it reads.
    """
    schemes, parts = job.quantization, _parts(job.config)
    chosen = {
        "decoder": schemes.layer_schemes(),
        "head": (schemes.head,),
        "vision": (schemes.vision,),
    }
    rounded = (
        _rounding_bytes(parts[name])
        for name, found in chosen.items()
        if name in parts and any(map(is_calibrated, found))
    )
    language = job.config.language
    table = language.vocab_size * language.hidden_size * schemes.embedding.weights.bits_per_weight
    weights = sum(_weight_bytes(parts[name]) for name in ("decoder", "vision") if name in parts)
    held = weights + math.ceil(table / 8) + _rows_bytes(job.config, data)
    return PROGRAM_BYTES + held + max(rounded, default=0)


def _parts(config: MobileVLMConfig) -> Mapping[str, list[_Layer]]:
    """Return the linear layers of one decoder layer, the head, and one layer's tower and projector.

    Of layers that are alike, the first stands for all: one is loaded at a time.
    """
    joined: dict[tuple[str, str], _Layer] = {}
    tensors = expected_tensors(config)
    if HEAD in tensors:
        tensors.pop(TABLE)  # else the head is tied to it
    for name, shape in tensors.items():
        if len(shape) < 2 or "position_embedding" in name or _is_later_layer(name):
            continue
        layer = _JOINED.sub(lambda found: "qkv" if found[0][0] in "qkv" else "gate_up", name)
        key, width = (_part(name), layer), math.prod(shape[1:])
        rows = joined[key].rows if key in joined else 0
        joined[key] = _Layer(rows + shape[0], width)
    parts: dict[str, list[_Layer]] = {}
    for (part, _), matrix in joined.items():
        parts.setdefault(part, []).append(matrix)
    return parts


def _is_later_layer(name: str) -> bool:
    starts = (each for each in (_DECODER, _TOWER_LAYERS) if each in name)
    return any(not name.partition(start)[2].startswith("0.") for start in starts)


def _part(name: str) -> str:
    if name.startswith(_DECODER):
        return "decoder"
    return "head" if name in (HEAD, TABLE) else "vision"


def _weight_bytes(layers: Iterable[_Layer]) -> int:
    return sum(each.rows * each.width for each in layers) * _FLOAT32


def _rounding_bytes(layers: Iterable[_Layer]) -> int:
    """Return the moments of all layers of a part, and the peak of rounding one of them."""
    layers, at_once = list(layers), ROWS * default_threads()
    moments = sum(each.width**2 for each in layers)
    rounding = max(
        (matrix_copies * each.rows + row_copies * min(each.rows, at_once)) * each.width
        + moment_copies * each.width**2
        for each in layers
        for matrix_copies, row_copies, moment_copies in (_ROUNDING_COPIES, _INVERSION_COPIES)
    )
    candidates = group_search.ROWS * group_search.CANDIDATES * GROUP_SIZE
    searching = _CANDIDATE_COPIES * candidates * default_threads()
    return (moments + rounding + searching) * _FLOAT32


def _rows_bytes(config: MobileVLMConfig, data: CalibrationData) -> int:
    """Return the inputs and outputs of one part for all samples, or for all of their images."""
    decoder = 2 * data.positions * config.language.hidden_size
    images = sum(source.images for source in data.sources)
    if config.vision is None or not images:
        return decoder * _FLOAT32
    vision = config.vision
    pixels = 3 * vision.image_size**2
    row = (vision.num_patches + 1) * vision.hidden_size
    embeddings = images * config.image_tokens * config.language.hidden_size
    return max(images * (max(pixels, row) + row), decoder + embeddings) * _FLOAT32
