"""What a CPU target says of its instructions."""

from __future__ import annotations

from tvm.target import Target


def cpu_features(target: Target) -> frozenset[str]:
    """Return the features that code for `target` may use, by LLVM's names: ``+avx2``."""
    return frozenset(str(feature) for feature in target.attrs.get("mattr", ()))
