"""MobileVLM: the tower, the projector and the decoder joined, and exported as a Relax module.

The exported functions, all of batch one, with every parameter behind the other arguments as one
tuple:

========================  =============================================  =========================
function                  arguments                                      result
========================  =============================================  =========================
``vision_tower``          pixels ``(1, 3, S, S)`` float32                see below
``vision_tower_2``, ...   states ``(1, 1 + patches, C)`` float32         see below
``projector``             features ``(1, patches, C)`` float32           ``(1, image_tokens, H)``
``embed``                 ids ``(1, n)`` int32                           ``(1, n, H)``
``prefill``               embeddings ``(1, n, H)`` float32, wanted       logits ``(1, k, V)``
                          ``(k,)`` int32, cache
``prefill_all``           embeddings ``(1, n, H)`` float32, cache        logits ``(1, n, V)``
``decode_few``            ids ``(1, k)`` int32, cache                    logits ``(1, k, V)``
``decode``                ids ``(1, 1)`` int32, cache                    logits ``(1, 1, V)``
========================  =============================================  =========================

The rows of a call belong to any number of sequences: chunks of prompts, tokens, drafted tokens. The
first and the third function of the KV cache compute the logits of up to 16 rows, k: ``prefill`` of
those among its rows that are wanted. ``decode`` is the same for one row. A row's logits have the
same bits in all of them. The cache is a tuple, whose pages are written in place: where the rows
lie, and each layer's pages (see `models.kv_cache` and `models.cache_layout`). A text-only model
lacks the tower and the projector. Each function of the tower computes a part of its layers (see
`models.clip`): it returns the states that the next one takes, the last one patch features ``(1,
patches, C)``. A user's own tower is one part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm.relax.frontend import nn
from tvm.target import Target

from mvlm.models.cache_layout import cache_layout
from mvlm.models.clip import VisionTower
from mvlm.models.config import MobileVLMConfig
from mvlm.models.kv_cache import cache_spec, read_cache
from mvlm.models.llama import Llama
from mvlm.models.onnx_vision import OnnxVision
from mvlm.models.ops.signatures import FEW
from mvlm.models.projectors import build_projector
from mvlm.models.quantization import Quantization
from mvlm.models.weight_layout import LinearFormat, WeightLayout
from mvlm.runtime.artifact.layout import tower_part


class MobileVLM(nn.Module):
    """The whole model.

    Args:
        config: The checkpoint's configuration.
        quantization: How the parts' matrices and the KV cache are stored.
        layout: How the weights of linear layers are arranged: the target's kernel set declares it.
        onnx: What takes the place of tower, projector or both.
    """

    def __init__(
        self,
        config: MobileVLMConfig,
        quantization: Quantization,
        layout: WeightLayout,
        onnx: OnnxVision | None = None,
    ) -> None:
        self.config = config
        self.layout = layout
        vision = LinearFormat(quantization.vision, layout)
        role = onnx.role if onnx else None
        if config.vision is not None:
            self.tower = (
                onnx.layer if onnx and role in ("tower", "both") else VisionTower(config, vision)
            )
            functions = self._tower_functions()
            self.tower_parts = len(functions)
            for part, function in enumerate(functions):
                setattr(self, tower_part(part), function)
            if onnx and role == "projector":
                self.image_projector = onnx.layer
            elif role != "both":
                self.image_projector = build_projector(config, vision)
        self.ends_with_tower = role == "both"
        self.decoder = Llama(config.language, quantization, layout)
        self.cache_layout = cache_layout(config.language, quantization.cache)

    def _tower_functions(self) -> list[Callable[[nn.Tensor], nn.Tensor]]:
        """Return the functions that encode an image into patch features, one for each part."""
        tower = self.tower
        if not isinstance(tower, VisionTower):
            return [tower.forward]

        def function(part: int) -> Callable[[nn.Tensor], nn.Tensor]:
            return lambda x: tower(x, part)

        return [function(part) for part in range(tower.num_parts)]

    def projector(self, features: nn.Tensor) -> nn.Tensor:
        """Turn patch features into embeddings of the decoder."""
        return features if self.ends_with_tower else self.image_projector(features)

    def embed(self, ids: nn.Tensor) -> nn.Tensor:
        """Look up token embeddings."""
        return self.decoder.embed(ids)

    def prefill(
        self, embeddings: nn.Tensor, wanted: nn.Tensor, cache: list[nn.Tensor]
    ) -> nn.Tensor:
        """Read rows of some sequences; logits of the wanted ones."""
        return self.decoder.logits(self._hidden(embeddings, cache, wanted))

    def prefill_all(self, embeddings: nn.Tensor, cache: list[nn.Tensor]) -> nn.Tensor:
        """Read rows of some sequences; logits of all."""
        return self.decoder.logits(self._hidden(embeddings, cache))

    def decode_few(self, ids: nn.Tensor, cache: list[nn.Tensor]) -> nn.Tensor:
        """Read some tokens, of one sequence or of several; the logits behind each."""
        return self.decode(ids, cache)

    def decode(self, ids: nn.Tensor, cache: list[nn.Tensor]) -> nn.Tensor:
        """Read one token; the logits of the next."""
        return self.decoder.logits(self._hidden(self.decoder.embed(ids), cache))

    def _hidden(
        self, embeddings: nn.Tensor, cache: list[nn.Tensor], wanted: nn.Tensor | None = None
    ) -> nn.Tensor:
        return self.decoder(embeddings, read_cache(self.cache_layout, cache), wanted)

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
        cache, few, one = (cache_spec(self.cache_layout, rows) for rows in ("n", FEW, 1))
        chunk = nn.spec.Tensor((1, "n", hidden), "float32")
        functions: dict[str, dict[str, Any]] = {
            "embed": {"ids": nn.spec.Tensor((1, "n"), "int32")},
            "prefill": {
                "embeddings": chunk,
                "wanted": nn.spec.Tensor((FEW,), "int32"),
                "cache": cache,
            },
            "prefill_all": {"embeddings": chunk, "cache": cache},
            "decode_few": {"ids": nn.spec.Tensor((1, FEW), "int32"), "cache": few},
            "decode": {"ids": nn.spec.Tensor((1, 1), "int32"), "cache": one},
        }
        if self.config.vision is not None:
            vision, size = self.config.vision, self.config.vision.image_size
            tokens = vision.num_patches + (self.config.select_feature == "cls_patch")
            functions[tower_part(0)] = {"x": nn.spec.Tensor((1, 3, size, size), "float32")}
            states = nn.spec.Tensor((1, vision.num_patches + 1, vision.hidden_size), "float32")
            functions |= {tower_part(part): {"x": states} for part in range(1, self.tower_parts)}
            handed = (1, tokens, vision.hidden_size)
            if self.ends_with_tower:
                handed = (1, self.config.image_tokens, hidden)
            functions["projector"] = {"features": nn.spec.Tensor(handed, "float32")}
        return {name: {**of, "$": modes} for name, of in functions.items()}
