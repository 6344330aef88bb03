"""The names and shapes of a model's tensors.

They are the names of the published checkpoints, except that the vision tower's always begin with
`vision_tower.vision_model.`, wherever the tower came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from mvlm.models.config.clip import ClipVisionConfig
from mvlm.models.config.llama import LlamaConfig
from mvlm.models.config.mobilevlm import MobileVLMConfig
from mvlm.models.config.projector import ProjectorConfig

Shape = tuple[int, ...]

TOWER_PREFIX = "vision_tower.vision_model."
# Where a CLIP's own folder has the tower.
CLIP_PREFIX = "vision_model."

PROJECTOR_PREFIX = "model.mm_projector."

# The table of tokens, and the output head, which a tied model does not have.
TABLE = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
# The tables that are looked up in, and not multiplied by.
EMBEDDINGS = frozenset({TABLE, f"{TOWER_PREFIX}embeddings.position_embedding.weight"})

# Tensors that may be there and are never needed: buffers that are recomputed, a CLIP's other
# half, a tower inside a checkpoint whose tower is taken from elsewhere, a tied output head.
_HARMLESS = re.compile(
    r".*\.position_ids"
    r"|.*\.rotary_emb\.inv_freq"
    r"|text_model\..*|text_projection\..*|visual_projection\..*|logit_scale"
    r"|model\.vision_tower\..*"
    r"|vision_tower\.vision_model\.post_layernorm\..*"
    r"|lm_head\.weight"
)
_TOWER_LAYER = re.compile(r"vision_tower\.vision_model\.encoder\.layers\.[0-9]+\.")


def expected_tensors(config: MobileVLMConfig) -> dict[str, Shape]:
    """The name and shape of every tensor that the model computes with.

    The tower's unused layers and its last LayerNorm are not among them.
    """
    tensors = dict(language_tensors(config.language))
    if config.vision is not None and config.projector is not None:
        tensors.update(tower_tensors(config.vision, config.num_used_vision_layers))
        tensors.update(projector_tensors(config.projector))
    return tensors


def harmless(names: Iterable[str], expected: Mapping[str, Shape]) -> set[str]:
    """Those of `names` that are not in `expected` and can be left aside."""
    layers = {match[0] for name in expected if (match := _TOWER_LAYER.match(name))}
    found = set()
    for name in set(names) - expected.keys():
        layer = _TOWER_LAYER.match(name)
        if _HARMLESS.fullmatch(name) or (layer and layer[0] not in layers):
            found.add(name)
    return found


def is_never_computed(name: str, expected: Mapping[str, Shape]) -> bool:
    """Whether a tensor is of a tower's layer behind the one whose output is used."""
    return name.startswith(TOWER_PREFIX) and bool(harmless((name,), expected))


def language_tensors(config: LlamaConfig) -> Iterator[tuple[str, Shape]]:
    """The decoder's tensors, in the order of the layers."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    yield TABLE, (config.vocab_size, hidden)
    for index in range(config.num_hidden_layers):
        layer = f"model.layers.{index}."
        yield layer + "input_layernorm.weight", (hidden,)
        yield layer + "self_attn.q_proj.weight", (queries, hidden)
        yield layer + "self_attn.k_proj.weight", (keys, hidden)
        yield layer + "self_attn.v_proj.weight", (keys, hidden)
        yield layer + "self_attn.o_proj.weight", (hidden, queries)
        yield layer + "post_attention_layernorm.weight", (hidden,)
        yield layer + "mlp.gate_proj.weight", (inner, hidden)
        yield layer + "mlp.up_proj.weight", (inner, hidden)
        yield layer + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not config.tie_word_embeddings:
        yield HEAD, (config.vocab_size, hidden)


def tower_tensors(config: ClipVisionConfig, num_layers: int) -> Iterator[tuple[str, Shape]]:
    """The tensors of the tower up to its layer `num_layers`, without the last LayerNorm."""
    hidden, inner, patch = config.hidden_size, config.intermediate_size, config.patch_size
    embeddings = TOWER_PREFIX + "embeddings."
    yield embeddings + "class_embedding", (hidden,)
    yield embeddings + "patch_embedding.weight", (hidden, 3, patch, patch)
    yield embeddings + "position_embedding.weight", (config.num_patches + 1, hidden)
    # The name is misspelt in CLIP itself.
    yield from _norm(TOWER_PREFIX + "pre_layrnorm", hidden)
    for index in range(num_layers):
        layer = f"{TOWER_PREFIX}encoder.layers.{index}."
        yield from _norm(layer + "layer_norm1", hidden)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}self_attn.{projection}", hidden, hidden)
        yield from _norm(layer + "layer_norm2", hidden)
        yield from _linear(layer + "mlp.fc1", hidden, inner)
        yield from _linear(layer + "mlp.fc2", inner, hidden)


def projector_tensors(config: ProjectorConfig) -> Iterator[tuple[str, Shape]]:
    """The projector's tensors."""
    return PROJECTOR_TENSORS[config.kind](config)


def _linear_projector(config: ProjectorConfig) -> Iterator[tuple[str, Shape]]:
    name = PROJECTOR_PREFIX.removesuffix(".")
    yield from _linear(name, config.in_features, config.out_features)


def _mlp(config: ProjectorConfig) -> Iterator[tuple[str, Shape]]:
    for index in range(config.depth):
        # Every other entry of the published Sequential is a GELU.
        width_in = config.out_features if index else config.in_features
        yield from _linear(f"{PROJECTOR_PREFIX}{2 * index}", width_in, config.out_features)


def _ldpnetv2(config: ProjectorConfig) -> Iterator[tuple[str, Shape]]:
    width = config.out_features
    yield from _linear(PROJECTOR_PREFIX + "mlp.mlp.0", config.in_features, width)
    yield from _linear(PROJECTOR_PREFIX + "mlp.mlp.2", width, width)
    yield PROJECTOR_PREFIX + "peg.peg.0.weight", (width, 1, 3, 3)
    yield PROJECTOR_PREFIX + "peg.peg.0.bias", (width,)


def _ldpnet(config: ProjectorConfig) -> Iterator[tuple[str, Shape]]:
    model = PROJECTOR_PREFIX + "model."
    width, squeezed = config.out_features, config.squeeze_channels
    yield from _linear(model + "mlp.1", config.in_features, width)
    yield from _linear(model + "mlp.3", width, width)
    for index in (1, 2):
        block = f"{model}mb_block.{index}.block."
        yield block + "0.0.weight", (width, 1, 3, 3)
        yield from _norm(block + "0.1", width)
        yield block + "1.fc1.weight", (squeezed, width, 1, 1)
        yield block + "1.fc1.bias", (squeezed,)
        yield block + "1.fc2.weight", (width, squeezed, 1, 1)
        yield block + "1.fc2.bias", (width,)
        yield block + "2.0.weight", (width, width, 1, 1)
        yield from _norm(block + "2.1", width)


# By the projector's kind.
PROJECTOR_TENSORS: Mapping[str, Callable[[ProjectorConfig], Iterator[tuple[str, Shape]]]] = {
    "ldpnet": _ldpnet,
    "ldpnetv2": _ldpnetv2,
    "linear": _linear_projector,
    "mlp": _mlp,
}


def _linear(name: str, width_in: int, width_out: int) -> Iterator[tuple[str, Shape]]:
    yield name + ".weight", (width_out, width_in)
    yield name + ".bias", (width_out,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield name + ".weight", (width,)
    yield name + ".bias", (width,)
