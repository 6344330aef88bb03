"""Images from the command line to a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvlm.runtime.errors import PromptError

if TYPE_CHECKING:
    from mvlm.runtime.model import FloatArray, Model


def load_pixels(path: Path, model: Model) -> FloatArray:
    """Read an image as a model sees it: ``(1, 3, S, S)`` float32.

    Raises:
        PromptError: The model reads text only.
        ImageError: The image cannot be read.
    """
    from mvlm.runtime.image import load_image, preprocess

    spec = model.settings.image
    if spec is None:
        raise PromptError(
            f"the model reads text only and cannot look at {path}",
            fix="Leave the image out, or use a MobileVLM.",
        )
    return preprocess(load_image(path), spec)
