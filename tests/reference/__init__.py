"""An independent MobileVLM in torch, and random checkpoints to hold other implementations against.

Nothing here uses `mvlm.models`: decoder and tower are those of transformers, the projectors are
written out in torch, and the checkpoint is read by a few lines of its own.
"""

from tests.reference.checkpoints import write_random_checkpoint
from tests.reference.families import FAMILIES, Family
from tests.reference.images import draw_image, preprocess
from tests.reference.model import FEATURE_TOLERANCE, IMAGE_TOKEN, LOGIT_TOLERANCE, Reference

__all__ = [
    "FAMILIES",
    "FEATURE_TOLERANCE",
    "IMAGE_TOKEN",
    "LOGIT_TOLERANCE",
    "Family",
    "Reference",
    "draw_image",
    "preprocess",
    "write_random_checkpoint",
]
