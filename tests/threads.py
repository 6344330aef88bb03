"""Threads of the tests' processes, set when this module is imported: before torch and TVM are.

With pytest's `-n`, several workers share the cores: torch computes on one thread in each, and the
threads of TVM, of which kernels are tested with several, are bound to no core and sleep while they
have nothing to do. They would fight over the cores otherwise.
"""

from __future__ import annotations

import os

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ

os.environ.setdefault("OMP_NUM_THREADS", "1" if IS_WORKER else "2")
if IS_WORKER:
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "0")
