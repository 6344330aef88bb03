"""llama.cpp's importance matrix of SmolLM2: from the data that our schemes are calibrated with.

Of each linear layer it is the mean square of each input, as `llama-imatrix` measures it; the
output head, whose type llama.cpp does not round by it, is left out, as there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.bench.peers.runner import Importance
from mvlm.runtime.atomic_write import atomic_write

# Hugging Face's name of a layer's matrix, and llama.cpp's.
_MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def gguf_name(module: str) -> str | None:
    """Return llama.cpp's name of a linear layer's matrix; None of what is in no layer."""
    found = _LAYER.fullmatch(module)
    if found is None or found[2] not in _MATRICES:
        return None
    return f"blk.{found[1]}.{_MATRICES[found[2]]}.weight"


def measure_importance(checkpoint: Path, samples: Sequence[Sequence[int]]) -> Importance:
    """Return the mean squares of the layers' inputs, of a checkpoint in float32.

    Args:
        checkpoint: Its folder.
        samples: Ids of sequences.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    sums: dict[str, npt.NDArray[np.float64]] = {}

    def adding(name: str) -> Any:
        def add(module: Any, inputs: Any) -> None:
            squares = inputs[0][0].double().square().sum(dim=0).numpy()
            sums[name] = sums.get(name, 0.0) + squares

        return add

    for module_name, module in model.named_modules():
        name = gguf_name(module_name)
        if name is not None:
            module.register_forward_pre_hook(adding(name))
    with torch.no_grad():
        for ids in samples:
            model.model(torch.tensor([list(ids)]))
    positions = sum(map(len, samples))
    return {name: (total / positions).astype(np.float32) for name, total in sums.items()}


def write_importance(importance: Importance, file: Path) -> None:
    """Write an importance matrix."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(importance)
    np.savez(buffer, **arrays)
    with atomic_write(file) as opened:
        opened.write(buffer.getvalue())


def read_importance(file: Path) -> Importance:
    """Read what :func:`write_importance` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
