"""The decoder: MobileLLaMA (MobileVLM paper, section 3.3), a LLaMA of 1.4 or 2.7 billion.

RMSNorm, rotary positions that rotate halves, SwiGLU, no biases.
"""

from __future__ import annotations

from tvm.relax.frontend import nn

from mvlm.models import ops
from mvlm.models.config import LlamaConfig
from mvlm.models.kv_cache import Cache, take_rows
from mvlm.models.layers import Embedding, Linear, RMSNorm, TiedEmbedding
from mvlm.models.quantization import LayerSchemes, Quantization, Scheme
from mvlm.models.rotary import RotaryTable, inverse_frequencies, rotary_table
from mvlm.models.weight_layout import LinearFormat, WeightLayout


class Llama(nn.Module):
    """Embeddings to logits, through a KV cache that remembers what came before."""

    def __init__(
        self, config: LlamaConfig, quantization: Quantization, layout: WeightLayout
    ) -> None:
        head = Linear(
            ("model.embed_tokens" if config.tie_word_embeddings else "lm_head",),
            config.hidden_size,
            config.vocab_size,
            LinearFormat(quantization.head, layout),
            bias=False,
        )
        is_tied = config.tie_word_embeddings and quantization.embedding == quantization.head
        self.embed_tokens = (
            TiedEmbedding(head) if is_tied else _table(config, quantization.embedding)
        )
        self.layers = nn.ModuleList(
            [
                DecoderLayer(index, config, quantization.layer(index), layout)
                for index in range(config.num_hidden_layers)
            ]
        )
        self.frequencies = inverse_frequencies(config.head_dim, config.rope_theta)
        self.norm = RMSNorm("model.norm", config.hidden_size, config.rms_norm_eps)
        self.lm_head = head

    def embed(self, ids: nn.Tensor) -> nn.Tensor:
        """Map ids ``(1, n)`` int32 to embeddings ``(1, n, hidden)``."""
        return self.embed_tokens(ids)

    def forward(self, x: nn.Tensor, cache: Cache, wanted: nn.Tensor | None = None) -> nn.Tensor:
        """Map embeddings ``(1, n, hidden)`` to hidden states, appending to the cache.

        Args:
            x: The embeddings.
            cache: What came before, and where the rows lie in it.
            wanted: ``(k,)`` int32: the rows whose hidden states are returned, ``(1, k, hidden)``;
                all if None. The last layer attends, and goes on, from these alone.
        """
        table = rotary_table(cache.positions, self.frequencies)
        for index, layer in enumerate(self.layers):
            is_last = index + 1 == len(self.layers)
            x = layer(x, table, cache, wanted if is_last else None)
        return x

    def logits(self, hidden: nn.Tensor) -> nn.Tensor:
        """Map hidden states ``(1, n, hidden)`` to logits ``(1, n, vocabulary)`` float32."""
        return self.lm_head(hidden, prologue=self.norm.prologue)


def _table(config: LlamaConfig, scheme: Scheme) -> Embedding:
    return Embedding("model.embed_tokens.weight", config.vocab_size, config.hidden_size, scheme)


class DecoderLayer(nn.Module):
    """Attention and a gated MLP, each behind an RMSNorm and around a residual."""

    def __init__(
        self, index: int, config: LlamaConfig, schemes: LayerSchemes, layout: WeightLayout
    ) -> None:
        name = f"model.layers.{index}"
        hidden, inner, eps = config.hidden_size, config.intermediate_size, config.rms_norm_eps
        self.input_norm = RMSNorm(f"{name}.input_layernorm", hidden, eps)
        self.attention = Attention(index, config, LinearFormat(schemes.attention, layout))
        self.post_norm = RMSNorm(f"{name}.post_attention_layernorm", hidden, eps)
        self.gate_up = Linear(
            (f"{name}.mlp.gate_proj", f"{name}.mlp.up_proj"),
            hidden,
            2 * inner,
            LinearFormat(schemes.gate_up, layout),
            bias=False,
        )
        self.down = Linear(
            (f"{name}.mlp.down_proj",),
            inner,
            hidden,
            LinearFormat(schemes.down, layout),
            bias=False,
        )

    def forward(
        self, x: nn.Tensor, table: RotaryTable, cache: Cache, wanted: nn.Tensor | None
    ) -> nn.Tensor:
        """Map ``(1, n, hidden)`` to the same shape, or to that of the wanted rows.

        Args:
            x: The layer's input.
            table: As :func:`rotary_table` makes it.
            cache: What came before.
            wanted: As :meth:`Llama.forward` takes it.
        """
        x = self.attention(x, self.input_norm.prologue, table, cache, wanted)
        gates = self.gate_up(x, prologue=self.post_norm.prologue)
        return self.down(gates, prologue=ops.SILU_PRODUCT, residual=x)


class Attention(nn.Module):
    """Causal attention with rotary positions, over as many KV heads as the configuration has."""

    def __init__(self, index: int, config: LlamaConfig, linear_format: LinearFormat) -> None:
        name = f"model.layers.{index}.self_attn"
        self.index = index
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.qkv = Linear(
            tuple(f"{name}.{part}_proj" for part in "qkv"),
            config.hidden_size,
            (self.heads + 2 * self.kv_heads) * self.head_dim,
            linear_format,
            bias=False,
        )
        self.out = Linear(
            (f"{name}.o_proj",),
            self.heads * self.head_dim,
            config.hidden_size,
            linear_format,
            bias=False,
        )

    def forward(
        self,
        x: nn.Tensor,
        norm: ops.Prologue,
        table: RotaryTable,
        cache: Cache,
        wanted: nn.Tensor | None,
    ) -> nn.Tensor:
        """Map ``(1, n, hidden)`` to the same shape, appending K and V to the cache.

        The normalization before it and the residual around it are part of it. Of all rows keys and
        values are appended; only the wanted ones go on.
        """
        batch, length, _ = x.shape
        heads = self.heads + 2 * self.kv_heads
        qkv = nn.op.reshape(self.qkv(x, prologue=norm), (length, heads, self.head_dim))
        pages = ops.append_to_cache(qkv, table, cache, self.index)
        if wanted is not None:
            cache, length = cache.of_rows(wanted), wanted.shape[0]
            x, qkv = take_rows(x, wanted, axis=1), take_rows(qkv, wanted)
            table = (take_rows(table[0], wanted), take_rows(table[1], wanted))
        mixed = ops.cached_attention(qkv, table, cache, pages)
        flat = nn.op.reshape(mixed, (batch, length, self.heads * self.head_dim))
        return self.out(flat, residual=x)
