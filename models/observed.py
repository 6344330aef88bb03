"""The model in the parts that calibration runs, each with what its linear layers read.

A function for each part returns the part's output and, behind it, the inputs of the part's linear
layers after their prologues, in the layers' order. All decoder layers have the same graph, and so
have the tower's layers: one function serves them, with the weights of the layer that is run in
place of the first one's.

=================  ========================================  ======================================
function           arguments                                 result
=================  ========================================  ======================================
``embed``          ids ``(1, n)`` int32                      ``(1, n, H)``
``decoder_layer``  ``(1, n, H)``, the cache of one layer     ``(1, n, H)``, inputs
``head``           ``(1, n, H)``                             the input of the output head
``tower_begin``    pixels ``(1, 3, S, S)``                   ``(1, 1 + patches, C)``, inputs
``tower_layer``    ``(1, 1 + patches, C)``                   ``(1, 1 + patches, C)``, inputs
``projector``      ``(1, 1 + patches, C)``                   ``(1, image_tokens, H)``, inputs
=================  ========================================  ======================================

A text-only model has the first three alone. All tensors are float32, the weights included: a
quantized layer is run with the weights that its integers stand for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvm.relax.frontend import nn

from mvlm.models import ops
from mvlm.models.config import MobileVLMConfig
from mvlm.models.kv_cache import cache_spec, read_cache
from mvlm.models.layers import Linear, observing, packed_layers
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.quantization import Scheme, plan_quantization
from mvlm.models.rotary import rotary_table
from mvlm.models.weight_layout import WeightLayout

FLOAT32 = plan_quantization("q0f32")
Outputs = tuple[nn.Tensor, ...]


class ObservedMobileVLM(MobileVLM):
    """The parts of a model; of equal layers it has one.

    Args:
        config: The checkpoint's configuration.
        layout: How the weights of linear layers are arranged.
        embedding: The scheme of the embedding table. The table is a layer of its own here, even
            where the artifact reads it from the head: the head is rounded last.
    """

    def __init__(self, config: MobileVLMConfig, layout: WeightLayout, embedding: Scheme) -> None:
        quantization = replace(FLOAT32, embedding=embedding)
        super().__init__(_with_single_layers(_untied(config)), quantization, layout)
        # The linear layers whose inputs each part returns; known once the parts are exported.
        self.linear_layers: dict[str, tuple[str, ...]] = {}

    def decoder_layer(self, x: nn.Tensor, cache: list[nn.Tensor]) -> Outputs:
        """Run a decoder layer, appending to the cache."""
        pages = read_cache(self.cache_layout, cache)
        table = rotary_table(pages.positions, self.decoder.frequencies)
        with observing() as inputs:
            y = self.decoder.layers[0](x, table, pages, None)
        return self._outputs("decoder_layer", y, inputs)

    def head(self, x: nn.Tensor) -> nn.Tensor:
        """Normalize hidden states for the output head."""
        return ops.rowwise(x, self.decoder.norm.prologue)

    def tower_begin(self, pixels: nn.Tensor) -> Outputs:
        """Embed an image's patches."""
        with observing() as inputs:
            y = self.tower.begin(pixels)
        return self._outputs("tower_begin", y, inputs)

    def tower_layer(self, x: nn.Tensor) -> Outputs:
        """Run a layer of the tower."""
        with observing() as inputs:
            y = self.tower.layers[0](x)
        return self._outputs("tower_layer", y, inputs)

    def projector(self, features: nn.Tensor) -> Outputs:
        """Select the tower's features and project them."""
        with observing() as inputs:
            y = self.image_projector(self.tower.end(features))
        return self._outputs("projector", y, inputs)

    def _outputs(self, part: str, y: nn.Tensor, inputs: list[tuple[Linear, nn.Tensor]]) -> Outputs:
        names = {id(layer): name for name, layer in packed_layers(self)}
        self.linear_layers[part] = tuple(names[id(layer)] for layer, _ in inputs)
        return (y, *(value for _, value in inputs))

    def _spec(self) -> dict[str, Any]:
        modes = {"param_mode": "packed", "effect_mode": "none"}
        hidden = self.config.language.hidden_size
        x = nn.spec.Tensor((1, "n", hidden), "float32")
        functions: dict[str, dict[str, Any]] = {
            "embed": {"ids": nn.spec.Tensor((1, "n"), "int32")},
            "decoder_layer": {"x": x, "cache": cache_spec(self.cache_layout, "n")},
            "head": {"x": x},
        }
        if self.config.vision is not None:
            vision, size = self.config.vision, self.config.vision.image_size
            patches = nn.spec.Tensor((1, vision.num_patches + 1, vision.hidden_size), "float32")
            functions["tower_begin"] = {"pixels": nn.spec.Tensor((1, 3, size, size), "float32")}
            functions["tower_layer"] = {"x": patches}
            functions["projector"] = {"features": patches}
        return {name: {**of, "$": modes} for name, of in functions.items()}


def _untied(config: MobileVLMConfig) -> MobileVLMConfig:
    return replace(config, language=replace(config.language, tie_word_embeddings=False))


def _with_single_layers(config: MobileVLMConfig) -> MobileVLMConfig:
    language = replace(config.language, num_hidden_layers=1)
    if config.vision is None:
        return replace(config, language=language)
    # Hidden state 1 is the output of the first layer.
    return replace(config, language=language, select_layer=1)
