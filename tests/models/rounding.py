"""Checkpoints whose matrices hold just the numbers that a quantization can store.

A compiled model computes with rounded weights in float32. A reference on the same rounded weights
must agree with it as closely as two float32 implementations do, so no tolerance has to cover the
rounding. The 4-bit rounding is written here a second time, one group after the other.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tests.reference.checkpoints import save_weights
from tests.reference.model import load_tensors

Floats = npt.NDArray[np.float32]
Rounding = Callable[[Floats], Floats]

GROUP = 32

# Not matrices, though of two or more axes: they stay in float32.
_TABLES_AND_TAPS = re.compile(
    r".*(position_embedding\.weight|mb_block\.\d\.block\.0\.0\.weight|peg\.peg\.0\.weight)"
)
_VISION = re.compile(r"(model\.mm_projector|model\.vision_tower|vision_model)\..*")


def to_float16(matrix: Floats) -> Floats:
    """Round to float16 and back."""
    return matrix.astype(np.float16).astype(np.float32)


def mlc_quantize(row: Floats) -> tuple[list[int], list[np.float16]]:
    """mlc-llm's q4f16_1 of one row, number by number: nibbles, and a scale for each group."""
    nibbles: list[int] = []
    scales: list[np.float16] = []
    for begin in range(0, len(row), GROUP):
        group = row[begin : begin + GROUP]
        scale = np.float16(max(abs(float(value)) for value in group) / 7)
        scales.append(scale if scale else np.float16(1))
        for value in group:
            level = round(float(np.float32(value) / np.float32(scales[-1])) + 7)
            nibbles.append(min(max(level, 0), 14))
    return nibbles, scales


def to_q4(matrix: Floats) -> Floats:
    """Round to what q4f16_1 holds; rows are flattened first, as a patch convolution's are."""
    flat = matrix.reshape(len(matrix), -1)
    out = np.empty_like(flat)
    for index, row in enumerate(flat):
        nibbles, scales = mlc_quantize(row)
        steps = np.repeat(np.array(scales, np.float32), GROUP)[: len(row)]
        out[index] = (np.array(nibbles, np.float32) - 7) * steps
    return out.reshape(matrix.shape)


def write_rounded(source: Path, parent: Path, language: Rounding, vision: Rounding) -> Path:
    """Copy a checkpoint (and the tower next to it) into `parent` with its matrices rounded."""
    folders = [source, source.with_name(f"{source.name}-clip")]
    for folder in filter(Path.is_dir, folders):
        copy = parent / folder.name
        shutil.copytree(folder, copy)
        rounded = {}
        for name, tensor in load_tensors(folder).items():
            if tensor.ndim < 2 or _TABLES_AND_TAPS.fullmatch(name):
                rounded[name] = tensor
            else:
                rounding = vision if _VISION.fullmatch(name) else language
                rounded[name] = torch.from_numpy(rounding(tensor.numpy()))
        for file in (*copy.glob("*.safetensors*"), *copy.glob("*.bin*")):
            file.unlink()
        save_weights(copy, rounded, file_format="safetensors")
    return parent / source.name
