"""The published models by name, and which of them a checkpoint is.

A checkpoint is identified by its shapes, never by its folder's name: see :func:`identify`.
Shapes are those of the papers' tables (MobileVLM, arXiv 2312.16886, tables 2 and 3; V2,
arXiv 2402.03766) and of the released files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mvlm.models.config.clip import ClipVisionConfig
from mvlm.models.config.llama import LlamaConfig
from mvlm.models.config.mobilevlm import MobileVLMConfig
from mvlm.runtime.errors import UsageError

CLIP_NAME = "clip-vit-large-patch14-336"
CLIP_REPOSITORY = f"openai/{CLIP_NAME}"

# CLIP ViT-L/14 at 336 pixels (Radford et al. 2021), the tower of every published MobileVLM.
CLIP = ClipVisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=336,
    patch_size=14,
    layer_norm_eps=1e-5,
    hidden_act="quick_gelu",
)

_MOBILELLAMA_1_4B = LlamaConfig(
    vocab_size=32_000,
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=24,
    num_attention_heads=16,
    num_key_value_heads=16,
    head_dim=128,
    rms_norm_eps=1e-6,
    rope_theta=10_000.0,
    max_position_embeddings=2048,
    tie_word_embeddings=False,
)
_MOBILELLAMA_2_7B = replace(
    _MOBILELLAMA_1_4B,
    hidden_size=2560,
    intermediate_size=6912,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_dim=80,
)
# Vicuna 7B v1.5, a LLaMA 2.
_VICUNA_7B = replace(
    _MOBILELLAMA_1_4B,
    hidden_size=4096,
    intermediate_size=11_008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    rms_norm_eps=1e-5,
    max_position_embeddings=4096,
)


@dataclass(frozen=True)
class PublishedModel:
    """One published shape.

    Attributes:
        name: What this repository calls it.
        repositories: Where it is published, below huggingface.co; several where checkpoints of
            one shape differ in their training only.
        decoder: The shape of its decoder.
        projector: The kind of its projector; None for a model of text only.
        stale_keys: Keys of its `config.json` that contradict its tensors, with their values.
    """

    name: str
    repositories: tuple[str, ...]
    decoder: LlamaConfig
    projector: str | None = None
    stale_keys: tuple[tuple[str, int], ...] = ()

    @property
    def tower_inside(self) -> bool:
        """Whether the checkpoint holds its vision tower, as a V2 does."""
        return self.projector == "ldpnetv2"


_STALE_3B = (("n_head", 16), ("n_query_groups", 16))

PUBLISHED_MODELS = {
    published.name: published
    for published in (
        PublishedModel(
            "MobileLLaMA-1.4B",
            ("mtgv/MobileLLaMA-1.4B-Base", "mtgv/MobileLLaMA-1.4B-Chat"),
            _MOBILELLAMA_1_4B,
        ),
        PublishedModel(
            "MobileLLaMA-2.7B",
            ("mtgv/MobileLLaMA-2.7B-Base", "mtgv/MobileLLaMA-2.7B-Chat"),
            _MOBILELLAMA_2_7B,
            stale_keys=_STALE_3B,
        ),
        PublishedModel("MobileVLM-1.7B", ("mtgv/MobileVLM-1.7B",), _MOBILELLAMA_1_4B, "ldpnet"),
        PublishedModel(
            "MobileVLM-3B", ("mtgv/MobileVLM-3B",), _MOBILELLAMA_2_7B, "ldpnet", _STALE_3B
        ),
        PublishedModel(
            "MobileVLM-V2-1.7B", ("mtgv/MobileVLM_V2-1.7B",), _MOBILELLAMA_1_4B, "ldpnetv2"
        ),
        PublishedModel(
            "MobileVLM-V2-3B", ("mtgv/MobileVLM_V2-3B",), _MOBILELLAMA_2_7B, "ldpnetv2", _STALE_3B
        ),
        PublishedModel("MobileVLM-V2-7B", ("mtgv/MobileVLM_V2-7B",), _VICUNA_7B, "ldpnetv2"),
    )
}


def find_published_model(name: str) -> PublishedModel:
    """Return the model of that name, however it is written.

    Capitals, `-`, `_` and the publisher's prefix do not matter, so that a repository's name
    serves as well: `mtgv/MobileVLM_V2-1.7B`, `mobilellama-1.4b-chat`.

    Raises:
        UsageError: There is none.
    """
    wanted = _plain(name)
    for published in PUBLISHED_MODELS.values():
        if wanted in map(_plain, (published.name, *published.repositories)):
            return published
    raise UsageError("unknown model", expected=" or ".join(PUBLISHED_MODELS), found=repr(name))


def identify(config: MobileVLMConfig) -> PublishedModel | None:
    """Return the published model that has a configuration's shape, or None."""
    projector = config.projector.kind if config.projector else None
    for published in PUBLISHED_MODELS.values():
        has_tower = projector is None or config.vision == CLIP
        if (published.decoder, published.projector) == (config.language, projector) and has_tower:
            return published
    return None


def _plain(name: str) -> str:
    return name.rpartition("/")[2].lower().replace("_", "-")
