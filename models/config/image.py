"""The configuration of image preprocessing, as a CLIP image processor describes it."""

from __future__ import annotations

import math
from typing import Any

from mvlm.models.json_config import JsonConfig
from mvlm.runtime.image import ImageSpec

# Mean and standard deviation of red, green and blue over CLIP's training images.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def image_spec(document: JsonConfig, *, image_size: int, aspect: str) -> ImageSpec:
    """Read a tower folder's `preprocessor_config.json`, whose other keys have been checked.

    Args:
        document: The file, or an empty object where there is none: then it is CLIP's own
            preprocessing at the tower's size.
        image_size: Side of the tower's input in pixels, which the file must agree with.
        aspect: `pad` or `crop`.

    Raises:
        ConfigError: A value is not usable, or asks for something that is not supported.
    """
    if document.values:
        _check_factor(document)
        _check_size(document, image_size, squared=aspect == "pad")
    return document.build(
        ImageSpec,
        size=image_size,
        mean=_triple(document.get("image_mean", CLIP_MEAN)),
        std=_triple(document.get("image_std", CLIP_STD)),
        aspect=aspect,
    )


def _check_factor(document: JsonConfig) -> None:
    factor = document.get("rescale_factor", 1 / 255)
    if type(factor) is not float or not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        document.refuse("rescale_factor", "1/255")


def _check_size(document: JsonConfig, image_size: int, *, squared: bool) -> None:
    """Ask that resizing and cropping both give the tower's size, as in every published CLIP."""
    resize = document.get("size", 224)
    if isinstance(resize, dict):
        # A fixed height and width distorts, unless the image is a square already.
        same = resize == {"height": image_size, "width": image_size} and squared
        resize = image_size if same else resize.get("shortest_edge")
    crop = document.get("crop_size", 224)
    if isinstance(crop, dict):
        crop = crop.get("height") if crop.get("height") == crop.get("width") else None
    for key, value in (("size", resize), ("crop_size", crop)):
        if type(value) is not int or value != image_size:
            document.refuse(key, f"{image_size}, the `image_size` of the vision tower")


def _triple(values: Any) -> Any:
    """A list of JSON as a tuple; the dataclass judges the rest."""
    return tuple(values) if isinstance(values, list) else values
