"""Imports tvm_ffi without the torch that it would pull in.

Where torch is installed, tvm_ffi imports it to exchange tensors faster: seconds of start-up and
hundreds of megabytes for something that a runtime of NumPy arrays never does. So torch is hidden
while tvm_ffi is imported, unless the process has it already.
"""

from __future__ import annotations

import sys
from types import ModuleType


def _import_tvm_ffi() -> ModuleType:
    hides_torch = "torch" not in sys.modules
    if hides_torch:
        # None makes `import torch` raise ImportError, which tvm_ffi is prepared for.
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tvm_ffi
    finally:
        if hides_torch:
            del sys.modules["torch"]
    return tvm_ffi


tvm_ffi = _import_tvm_ffi()

__all__ = ["tvm_ffi"]
