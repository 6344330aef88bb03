"""Images from the command line to a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvlm.runtime.errors import ImageError, PromptError

if TYPE_CHECKING:
    from mvlm.runtime.model import FloatArray, Model


def load_pixels(source: Path | bytes, model: Model) -> FloatArray:
    """Read an image as a model sees it: ``(1, 3, S, S)`` float32.

    Raises:
        PromptError: The model reads text only.
        ImageError: The image cannot be read.
    """
    from mvlm.runtime.image import load_image, preprocess

    spec = model.settings.image
    if spec is None:
        raise PromptError(
            f"the model reads text only and cannot look at {image_name(source, whole=True)}",
            fix="Leave the image out, or use a MobileVLM.",
        )
    return preprocess(load_image(source), spec)


def image_bytes(source: Path | bytes) -> bytes:
    """Return the bytes of an image file that could be read before.

    Raises:
        ImageError: It cannot be read any more.
    """
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {source}", found=error.strerror) from None


def image_name(source: Path | bytes, *, whole: bool = False) -> str:
    """Return what to call an image: its file's name, or its `whole` path."""
    if isinstance(source, bytes):
        return "the clipboard's image"
    return str(source) if whole else source.name
