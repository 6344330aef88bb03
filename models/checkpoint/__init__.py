"""Reads a checkpoint's weights, one tensor at a time, from safetensors or PyTorch files.

:func:`open_checkpoint` opens a MobileVLM with its vision tower, wherever the tower lies;
:meth:`Checkpoint.check` compares it with :func:`expected_tensors` by name before anything large
is read.
"""

from mvlm.models.checkpoint.checkpoint import Checkpoint, open_checkpoint
from mvlm.models.checkpoint.names import V2_TOWER_PREFIX, expected_tensors
from mvlm.models.checkpoint.report import Report
from mvlm.models.weight_files.weights import Weights, open_weights

__all__ = [
    "V2_TOWER_PREFIX",
    "Checkpoint",
    "Report",
    "Weights",
    "expected_tensors",
    "open_checkpoint",
    "open_weights",
]
