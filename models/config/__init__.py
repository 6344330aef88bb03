"""What a checkpoint folder says about its model, as frozen dataclasses validated when made.

:func:`~mvlm.models.config.read.read_config` reads a Hugging Face style folder. The dataclasses can
also be made by hand, and refuse the same mistakes.
"""

from mvlm.models.config.clip import ClipVisionConfig
from mvlm.models.config.llama import LlamaConfig
from mvlm.models.config.mobilevlm import MobileVLMConfig
from mvlm.models.config.projector import ProjectorConfig
from mvlm.models.config.text import GenerationConfig, TokenizerConfig
from mvlm.models.config.tower import find_vision_tower

__all__ = [
    "ClipVisionConfig",
    "GenerationConfig",
    "LlamaConfig",
    "MobileVLMConfig",
    "ProjectorConfig",
    "TokenizerConfig",
    "find_vision_tower",
]
