"""Projectors: patch features of the tower to embeddings of the decoder. One kind a file."""

from __future__ import annotations

from tvm.relax.frontend import nn

from mvlm.models.config import MobileVLMConfig
from mvlm.models.projectors.ldpnet import LDPNet
from mvlm.models.projectors.ldpnetv2 import LDPNetV2
from mvlm.models.projectors.mlp import MLP
from mvlm.models.weight_layout import LinearFormat

PROJECTORS = {"ldpnet": LDPNet, "ldpnetv2": LDPNetV2, "linear": MLP, "mlp": MLP}


def build_projector(config: MobileVLMConfig, linear_format: LinearFormat) -> nn.Module:
    """Make the projector that the configuration names.

    It maps ``(1, patches, in_features)`` float32 to ``(1, image_tokens, out_features)``.
    """
    assert config.projector is not None, "a text-only model has no projector"
    assert config.vision is not None
    return PROJECTORS[config.projector.kind](config.projector, config.vision.grid, linear_format)


__all__ = ["PROJECTORS", "build_projector"]
