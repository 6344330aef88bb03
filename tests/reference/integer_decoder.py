"""The decoder in NumPy as `q4a8` means it: uneven 4-bit levels, 8-bit activations and cache.

Embedding and head have 8-bit weights.

Products of integers are exact; everything between is float64. It is written from the definition of
the scheme and the LLaMA paper, not from the kernels, and is an oracle for what they compute in the
same integers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.quantization import GROUP_SIZE, Scheme, plan_quantization, quantize
from mvlm.schedules.oracles import arithmetic as oracles
from tests.models.stored_rows import multiples
from tests.reference.model import load_tensors

Array = npt.NDArray[Any]


class IntegerDecoder:
    """One sequence, read a position at a time or many at once.

    Args:
        folder: The checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self._tensors = {name: each.numpy() for name, each in load_tensors(folder).items()}
        self._plan = plan_quantization("q4a8")
        self._matrices: dict[str, tuple[Array, Array]] = {}
        layers = self.config["num_hidden_layers"]
        self._cache: list[tuple[list[Array], list[Array]]] = [([], []) for _ in range(layers)]

    def embed(self, ids: Sequence[int]) -> Array:
        """Look up embeddings ``(ids, hidden)``."""
        levels, scales = self._matrix("model.embed_tokens.weight", self._plan.embedding)
        return levels[list(ids)] * np.repeat(scales[list(ids)], GROUP_SIZE, 1)

    def read(self, x: Array) -> Array:
        """Read embeddings ``(n, hidden)``; logits of each ``(n, vocabulary)``."""
        eps = self.config["rms_norm_eps"]
        for index in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{index}"
            x = x + self._attention(index, self._norm(x, f"{name}.input_layernorm", eps))
            y = self._norm(x, f"{name}.post_attention_layernorm", eps)
            gate, up = (self._linear(y, f"{name}.mlp.{part}_proj") for part in ("gate", "up"))
            x = x + self._linear(gate / (1 + np.exp(-gate)) * up, f"{name}.mlp.down_proj")
        return self._product(self._norm(x, "model.norm", eps), "lm_head", self._plan.head)

    def _attention(self, index: int, x: Array) -> Array:
        heads, kv_heads = (self.config[f"num_{kind}_heads"] for kind in ("attention", "key_value"))
        name = f"model.layers.{index}.self_attn"
        q, k, v = (self._linear(x, f"{name}.{part}_proj") for part in "qkv")
        keys, values = self._cache[index]
        positions = np.arange(len(keys), len(keys) + len(x))
        q = oracles.rotate(q.reshape(len(x), heads, -1), positions)
        k = oracles.rotate(k.reshape(len(x), kv_heads, -1), positions)
        for kept, new in ((keys, k), (values, v.reshape(len(x), kv_heads, -1))):
            integers, scales = oracles.int8_vectors(new)
            kept.extend(integers * scales[..., None].astype(np.float64))
        mixed = oracles.causal_attention(q, np.stack(keys), np.stack(values))
        return self._linear(mixed.reshape(len(x), -1), f"{name}.o_proj")

    def _norm(self, x: Array, name: str, eps: float) -> Array:
        spread = np.sqrt((x**2).mean(-1, keepdims=True) + eps)
        return x / spread * self._tensors[f"{name}.weight"]

    def _linear(self, x: Array, name: str) -> Array:
        return self._product(x, name, self._plan.language)

    def _product(self, x: Array, name: str, scheme: Scheme) -> Array:
        levels, scales = self._matrix(f"{name}.weight", scheme)
        integers, x_scales = oracles.quantize_rows(x, "int8", scheme.groups_per_scale)
        return oracles.integer_linear(integers, x_scales, levels.T, scales.T)

    def _matrix(self, name: str, scheme: Scheme) -> tuple[Array, Array]:
        """Return integers, or levels with offsets, ``(N, K)``, and the scales of their groups."""
        if name not in self._matrices:
            matrix = self._tensors[name]
            assert matrix.shape[1] % GROUP_SIZE == 0
            quantized = quantize(matrix, scheme.weights, scheme.rounding)
            levels, steps = multiples(quantized)
            rows = quantized.row_scales
            self._matrices[name] = levels, steps if rows is None else steps * rows[:, None]
        return self._matrices[name]
