"""Images, and their preprocessing by transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import transformers
from PIL import Image


def draw_image(width: int, height: int, seed: int) -> Image.Image:
    """An image with smooth gradients, hard edges and noise."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = random.uniform(0.02, 0.3, (3, 2))
    canvas = np.stack([np.sin(rows * a) + np.cos(columns * b) for a, b in waves], axis=-1)
    canvas[height // 4 : height // 2, width // 3 : width // 2] = random.uniform(-2, 2, 3)
    canvas += random.normal(0, 0.2, canvas.shape)
    return Image.fromarray(np.clip(canvas * 50 + 128, 0, 255).astype(np.uint8), "RGB")


def preprocess(folder: Path, images: list[Image.Image]) -> npt.NDArray[np.float32]:
    """Pixels of shape (images, 3, size, size) for the checkpoint in `folder`.

    Padding is written out here, as MobileVLM does it; the rest is CLIPImageProcessor.
    """
    config = json.loads((folder / "config.json").read_text())
    processor = _processor(folder, config)
    if config.get("image_aspect_ratio") == "pad":
        colour = tuple(int(mean * 255) for mean in processor.image_mean)
        images = [_squared(image, colour) for image in images]
    pixels: npt.NDArray[np.float32] = processor(images, return_tensors="np")["pixel_values"]
    return pixels


def _processor(folder: Path, config: dict[str, Any]) -> transformers.CLIPImageProcessor:
    tower = folder / config["mm_vision_tower"]
    if tower.is_dir():
        return transformers.CLIPImageProcessor.from_pretrained(tower)
    # A V2 checkpoint alone: the image's size is in its tensors.
    from tests.reference.model import load_tensors, vision_config_of

    size = vision_config_of(folder, config, load_tensors(folder)).image_size
    return transformers.CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )


def _squared(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    width, height = image.size
    side = max(width, height)
    square = Image.new(image.mode, (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square
