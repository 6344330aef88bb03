"""MobileVLM: the tower, the projector and the decoder joined, and exported as a Relax module.

The exported functions, all of batch one, with every parameter behind the other arguments as one
tuple:

========================  =============================================  =========================
function                  arguments                                      result
========================  =============================================  =========================
``vision_tower``          pixels ``(1, 3, S, S)`` float32                ``(1, patches, C)``
``projector``             features ``(1, patches, C)`` float32           ``(1, image_tokens, H)``
``embed``                 ids ``(1, n)`` int32                           ``(1, n, H)``
``prefill``               embeddings ``(1, n, H)`` float32, cache        logits ``(1, 1, V)``
``prefill_all``           embeddings ``(1, n, H)`` float32, cache        logits ``(1, n, V)``
``decode``                ids ``(1, 1)`` int32, cache                    logits ``(1, 1, V)``
``create_kv_cache``       five sizes, see TVM's PagedKVCache             cache
========================  =============================================  =========================

``prefill`` computes the logits of the last position alone; ``prefill_all`` those of every one, for
whoever compares them with another implementation. A text-only model lacks the first two.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache, RopeMode, TIRPagedKVCache
from tvm.target import Target

from mvlm.models.clip import VisionTower
from mvlm.models.config import MobileVLMConfig
from mvlm.models.llama import Llama
from mvlm.models.onnx_vision import OnnxVision
from mvlm.models.projectors import build_projector
from mvlm.models.quantization import Quantization

CACHE_DTYPE = "float32"
PAGE_SIZE = 16  # the only one that TVM's CPU kernels are written for


class MobileVLM(nn.Module):
    """The whole model.

    Args:
        config: The checkpoint's configuration.
        quantization: How the parts' matrices are stored.
        onnx: What takes the place of tower, projector or both.
    """

    def __init__(
        self, config: MobileVLMConfig, quantization: Quantization, onnx: OnnxVision | None = None
    ) -> None:
        self.config = config
        role = onnx.role if onnx else None
        if config.vision is not None:
            self.tower = (
                onnx.layer
                if onnx and role in ("tower", "both")
                else VisionTower(config, quantization.vision)
            )
            if onnx and role == "projector":
                self.image_projector = onnx.layer
            elif role != "both":
                self.image_projector = build_projector(config, quantization.vision)
        self.ends_with_tower = role == "both"
        self.decoder = Llama(config.language, quantization)

    def vision_tower(self, pixels: nn.Tensor) -> nn.Tensor:
        """Encode a picture into patch features."""
        return self.tower(pixels)

    def projector(self, features: nn.Tensor) -> nn.Tensor:
        """Turn patch features into embeddings of the decoder."""
        return features if self.ends_with_tower else self.image_projector(features)

    def embed(self, ids: nn.Tensor) -> nn.Tensor:
        """Look up token embeddings."""
        return self.decoder.embed(ids)

    def prefill(self, embeddings: nn.Tensor, cache: PagedKVCache) -> nn.Tensor:
        """Read a prompt's chunk; logits of its last position."""
        return self.decoder.logits(_last_position(self.decoder(embeddings, cache)))

    def prefill_all(self, embeddings: nn.Tensor, cache: PagedKVCache) -> nn.Tensor:
        """Read a prompt's chunk; logits of every position."""
        return self.decoder.logits(self.decoder(embeddings, cache))

    def decode(self, ids: nn.Tensor, cache: PagedKVCache) -> nn.Tensor:
        """Read one token; the logits of the next."""
        return self.decoder.logits(self.decoder(self.decoder.embed(ids), cache))

    def create_kv_cache(
        self,
        max_batch_size: tirx.Var,
        max_total_seq_len: tirx.Var,
        prefill_chunk_size: tirx.Var,
        page_size: tirx.Var,
        support_sliding_window: tirx.Var,
    ) -> PagedKVCache:
        """Create an empty cache; `page_size` must be :data:`PAGE_SIZE`."""
        language = self.config.language
        return TIRPagedKVCache(
            attn_kind="mha",
            max_batch_size=max_batch_size,
            max_total_seq_len=max_total_seq_len,
            prefill_chunk_size=prefill_chunk_size,
            page_size=page_size,
            support_sliding_window=support_sliding_window,
            layer_partition=relax.ShapeExpr([0, language.num_hidden_layers]),
            num_hidden_layers=language.num_hidden_layers,
            num_attention_heads=language.num_attention_heads,
            num_key_value_heads=language.num_key_value_heads,
            qk_head_dim=language.head_dim,
            v_head_dim=language.head_dim,
            mla_original_qk_head_dim=0,
            mla_original_v_head_dim=0,
            rope_mode=RopeMode.NONE,  # the decoder rotates
            rope_scale=1,
            rope_theta=language.rope_theta,
            rope_scaling={},
            rope_ext_factors=relax.prim_value(0),
            rotary_dim=language.head_dim,
            enable_disaggregation=False,
            dtype=CACHE_DTYPE,
            target=Target.current(allow_none=False),
        )

    def export(self, target: Target) -> tuple[tvm.IRModule, list[tuple[str, nn.Parameter]]]:
        """Trace the functions into a Relax module for `target`.

        Returns:
            The module, and the parameters in the order in which every function takes them.
        """
        with target:
            module, parameters = self.export_tvm(spec=self._spec())
        return module, parameters

    def _spec(self) -> dict[str, Any]:
        hidden = self.config.language.hidden_size
        modes = {"param_mode": "packed", "effect_mode": "none"}
        cache = nn.spec.Object(object_type=PagedKVCache)
        chunk = nn.spec.Tensor((1, "n", hidden), "float32")
        functions: dict[str, dict[str, Any]] = {
            "embed": {"ids": nn.spec.Tensor((1, "n"), "int32")},
            "prefill": {"embeddings": chunk, "cache": cache},
            "prefill_all": {"embeddings": chunk, "cache": cache},
            "decode": {"ids": nn.spec.Tensor((1, 1), "int32"), "cache": cache},
        }
        if self.config.vision is not None:
            vision, size = self.config.vision, self.config.vision.image_size
            tokens = vision.num_patches + (self.config.select_feature == "cls_patch")
            functions["vision_tower"] = {"pixels": nn.spec.Tensor((1, 3, size, size), "float32")}
            handed = (1, tokens, vision.hidden_size)
            if self.ends_with_tower:
                handed = (1, self.config.image_tokens, hidden)
            functions["projector"] = {"features": nn.spec.Tensor(handed, "float32")}
        spec: dict[str, Any] = {name: {**of, "$": modes} for name, of in functions.items()}
        sizes = (
            "max_batch_size",
            "max_total_seq_len",
            "prefill_chunk_size",
            "page_size",
            "support_sliding_window",
        )
        spec["create_kv_cache"] = {
            **dict.fromkeys(sizes, int),
            "$": {"param_mode": "none", "effect_mode": "none"},
        }
        return spec


def _last_position(x: nn.Tensor) -> nn.Tensor:
    """Take ``(1, 1, H)`` out of ``(1, n, H)``."""

    def take(hidden: te.Tensor) -> te.Tensor:
        _, length, width = hidden.shape
        return te.compute((1, 1, width), lambda i, _, k: hidden[i, length - 1, k], name="last")

    return nn.op.tensor_expr_op(take, "last_position", [x])
