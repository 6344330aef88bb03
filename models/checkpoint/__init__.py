"""Reads a checkpoint's weights, one tensor at a time, wherever they lie.

:func:`open_checkpoint` opens a MobileVLM with its vision tower, wherever the tower lies;
:meth:`Checkpoint.check` compares it with :func:`expected_tensors` by name before anything large
is read.
"""

from mvlm.models.checkpoint.checkpoint import Checkpoint, open_checkpoint
from mvlm.models.checkpoint.names import expected_tensors
from mvlm.models.checkpoint.report import Report

__all__ = [
    "Checkpoint",
    "Report",
    "expected_tensors",
    "open_checkpoint",
]
