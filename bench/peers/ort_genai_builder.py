"""Runs onnxruntime-genai's model builder with a transformers that is older than it expects.

The builder imports the classes of all architectures that it knows, at once. One that this
transformers does not have yet is stood in for: a LLaMA is converted without it.
"""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
from pathlib import Path

BUILDER = "onnxruntime_genai.models.builder"
_ABSENT = re.compile(r"cannot import name '(\w+)' from 'transformers'")


def main() -> None:
    """Run the builder with this process's arguments."""
    stood_in: set[str] = set()
    while True:
        try:
            runpy.run_module(BUILDER, run_name="__main__", alter_sys=True)
            return
        except ImportError as error:
            absent = _ABSENT.match(str(error))
            if absent is None or absent[1] in stood_in:
                raise
            stood_in.add(absent[1])
            setattr(sys.modules["transformers"], absent[1], type(absent[1], (), {}))
            _forget_builder()


def _forget_builder() -> None:
    """Have the builder's own modules, which were imported halfway, imported again."""
    spec = importlib.util.find_spec(BUILDER)
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(folder):
            del sys.modules[name]


if __name__ == "__main__":
    main()
