"""Reads a folder's weight files, one tensor at a time: safetensors, PyTorch's, or mlc-llm's.

:func:`open_weights` opens whichever the folder has. Nothing here knows what model they are of.
"""

from mvlm.models.weight_files.open import open_weights
from mvlm.models.weight_files.tensor_file import Weights

__all__ = ["Weights", "open_weights"]
