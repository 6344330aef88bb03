"""The configuration of the decoder, a MobileLLaMA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mvlm.models.config.key_check import check_keys, is_same, refuse_unknown
from mvlm.models.config.keys import ROPE
from mvlm.models.json_config import (
    JsonConfig,
    check_choice,
    check_integer,
    check_number,
    short_repr,
)
from mvlm.runtime.errors import ConfigError


@dataclass(frozen=True)
class LlamaConfig:
    """A LLaMA decoder (Touvron et al. 2023): RMSNorm, rotary positions, SwiGLU, no biases.

    Args:
        vocab_size: Rows of the embedding table and of the output head.
        hidden_size: Channels of a token.
        intermediate_size: Channels inside a layer's MLP.
        num_hidden_layers: Layers.
        num_attention_heads: Query heads of `head_dim` channels.
        num_key_value_heads: Key and value heads; fewer than query heads when grouped.
        head_dim: Channels of a head, even, because rotary embedding pairs its halves.
        rms_norm_eps: Added to the mean square in every RMSNorm.
        rope_theta: Base of the rotary frequencies.
        max_position_embeddings: Positions that the model was trained for, in tokens.
        tie_word_embeddings: Whether the output head is the embedding table.

    Raises:
        ConfigError: A value is of the wrong type, out of range, or contradicts another.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    tie_word_embeddings: bool

    def __post_init__(self) -> None:
        check_integer("vocab_size", self.vocab_size, 1, 2**22)
        check_integer("hidden_size", self.hidden_size, 1, 2**16)
        check_integer("intermediate_size", self.intermediate_size, 1, 2**18)
        check_integer("num_hidden_layers", self.num_hidden_layers, 1, 1024)
        check_integer("num_attention_heads", self.num_attention_heads, 1, 1024)
        check_integer("num_key_value_heads", self.num_key_value_heads, 1, self.num_attention_heads)
        check_integer("head_dim", self.head_dim, 2, 1024)
        check_number("rms_norm_eps", self.rms_norm_eps, 1e-12, 0.1)
        check_number("rope_theta", self.rope_theta, 1.0, 1e12)
        check_integer("max_position_embeddings", self.max_position_embeddings, 1, 2**24)
        check_choice("tie_word_embeddings", self.tie_word_embeddings, (True, False))
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                "`num_key_value_heads` must divide `num_attention_heads`",
                expected=f"a divisor of {self.num_attention_heads}",
                found=self.num_key_value_heads,
            )
        if self.head_dim % 2:
            raise ConfigError("`head_dim` must be even for rotary positions", found=self.head_dim)

    def unit_weights(self) -> dict[str, int]:
        """Return the weights of each unit of a layer that a plan of bits has a scheme for."""
        heads = 2 * self.num_attention_heads + 2 * self.num_key_value_heads
        return {
            "attention": heads * self.head_dim * self.hidden_size,
            "gate_up": 2 * self.intermediate_size * self.hidden_size,
            "down": self.intermediate_size * self.hidden_size,
        }


def llama_config(document: JsonConfig) -> LlamaConfig:
    """Read the decoder's keys of a checkpoint's `config.json`.

    Absent keys are errors, except the ones that published MobileLLaMA files leave out:
    `num_key_value_heads` (as many as query heads), `head_dim`, `rope_theta` (10000) and
    `tie_word_embeddings` (false). Other keys are the business of the tables in
    :mod:`mvlm.models.config.keys`.

    Raises:
        ConfigError: A key is absent, not usable, or asks for something that is not supported.
    """
    if document.require("hidden_act") != "silu":
        document.refuse("hidden_act", "'silu'")
    _check_layer_types(document)
    heads = document.require("num_attention_heads")
    fields = {
        key: document.require(key)
        for key in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "rms_norm_eps",
            "max_position_embeddings",
        )
    }
    return document.build(
        LlamaConfig,
        **fields,
        num_key_value_heads=document.get("num_key_value_heads", heads),
        head_dim=_head_dim(document),
        rope_theta=_rope_theta(document),
        tie_word_embeddings=document.flag("tie_word_embeddings", False),
    )


def _check_layer_types(document: JsonConfig) -> None:
    kinds = document.get("layer_types", [])
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        document.refuse("layer_types", "'full_attention' for every layer")


def _head_dim(document: JsonConfig) -> Any:
    """The width of a head, which transformers computes where the key is absent."""
    if "head_dim" in document:
        return document.require("head_dim")
    hidden_size = document.integer("hidden_size", 1, 2**16)
    heads = document.integer("num_attention_heads", 1, 1024)
    if hidden_size % heads:
        document.refuse("num_attention_heads", f"a divisor of `hidden_size`, {hidden_size}")
    return hidden_size // heads


def _rope_theta(document: JsonConfig) -> Any:
    """The rotary base, wherever it is written, and the default kind of rotary positions.

    transformers 4 has a key of its own for the base and scales positions by `rope_scaling`;
    transformers 5 reads either object, and finds the base in it.
    """
    bases = [document.require("rope_theta")] if "rope_theta" in document else []
    for key in ("rope_scaling", "rope_parameters"):
        if document.get(key) in (None, {}):
            continue
        section = document.section(key)
        for kind in ("rope_type", "type"):
            if section.get(kind, "default") != "default":
                section.refuse(kind, "'default': scaled rotary positions are not supported")
        refuse_unknown(section, ROPE)
        check_keys(section, ROPE, key)
        bases += [section.require("rope_theta")] if "rope_theta" in section else []
        if bases and not is_same(bases[0], bases[-1]):
            section.refuse(
                "rope_theta", f"{short_repr(bases[0])}, which is said elsewhere in the file"
            )
    return bases[0] if bases else 10000.0
