"""The image store: training scenes drawn ahead of time, kept as raw bytes, mapped from disk."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mvlm.training.world.render import edge_map, fit, label_map, render
from mvlm.training.world.scene import MAX_SHAPES, Scene, random_scene

#: Patches along a side, and label cells: three per patch.
GRID = 12
CELLS = 3 * GRID
CHUNK = 250
T = TypeVar("T", np.uint8, np.int8)

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageStore:
    """Training images with all that is known about them.

    `pixels` (count, side, side, 3), `labels` (count, CELLS, CELLS) from `render.label_map`,
    `edges` (count, GRID, GRID, 3) from `render.edge_map`, and the scenes.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    edges: NDArray[np.int8]
    scenes: list[Scene]

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> ImageBatch:
        """Those images, each turned and mirrored at random together with its labels."""
        images, labels, edges, scenes = [], [], [], []
        for index in indices:
            mirror, flip, swap = (bool(b) for b in rng.random(3) < 0.5)
            images.append(_turn(self.pixels[index], mirror, flip, swap))
            labels.append(_turn(self.labels[index], mirror, flip, swap))
            # Mirroring negates an edge's angle; swapping x and y takes it from a right angle.
            signs = np.array([-1 if swap else 1, -1 if mirror != flip else 1, 1], np.int8)
            edges.append(_turn(self.edges[index], mirror, flip, swap) * signs)
            scenes.append(turn_scene(self.scenes[index], mirror, flip, swap))
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        stacked *= torch.from_numpy(rng.uniform(0.92, 1.04, (len(scenes), 3, 1, 1))).float()
        return ImageBatch(
            normalize(stacked.clamp_(0, 255)),
            torch.from_numpy(np.stack(labels)).long(),
            torch.from_numpy(np.stack(edges)).float(),
            scenes,
        )


@dataclass(frozen=True)
class ImageBatch:
    """Normalised pixels (n, 3, side, side), labels, edges (see `ImageStore`) and scenes."""

    pixels: torch.Tensor
    labels: torch.Tensor
    edges: torch.Tensor
    scenes: list[Scene]

    def squares(self, grid: int) -> torch.Tensor:
        """The label cells under each square of a grid, row by row: (n, grid^2, cells)."""
        n, per = len(self.scenes), CELLS // grid
        cells = self.labels.view(n, grid, per, grid, per).permute(0, 1, 3, 2, 4)
        return cells.reshape(n, grid**2, per**2)

    def owners(self, grid: int) -> torch.Tensor:
        """Which shape most of a square belongs to, from 1; 0 where there is none: (n, grid^2)."""
        cells = self.squares(grid)
        votes = torch.stack([(cells == i).sum(-1) for i in range(1, MAX_SHAPES + 1)], -1)
        return torch.where(votes.sum(-1) > 0, votes.argmax(-1) + 1, 0)


def shares(owners: torch.Tensor) -> torch.Tensor:
    """What each square of `ImageBatch.owners` weighs, so that a shape's weigh 1; 0 for none.

    A question may be about any shape; counted by area, the small ones would hardly be learned.
    """
    squares = torch.zeros(len(owners), MAX_SHAPES + 1).scatter_add(
        1, owners, torch.ones(owners.shape)
    )
    return torch.where(owners > 0, 1 / squares.gather(1, owners), 0)


def normalize(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes as floats (n, 3, h, w) -> CLIP's normalised pixels."""
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    std = torch.tensor(STD).view(1, 3, 1, 1)
    return ((pixels / 255 - mean) / std).contiguous()


def _turn(array: NDArray[T], mirror: bool, flip: bool, swap: bool) -> NDArray[T]:
    if mirror:
        array = array[:, ::-1]
    if flip:
        array = array[::-1]
    return np.swapaxes(array, 0, 1) if swap else array


def turn_scene(scene: Scene, mirror: bool, flip: bool, swap: bool) -> Scene:
    """The scene of an image mirrored left-right, then upside down, then along the diagonal."""
    shapes = []
    for shape in scene.shapes:
        x = 1 - shape.x if mirror else shape.x
        y = 1 - shape.y if flip else shape.y
        shapes.append(replace(shape, x=y, y=x) if swap else replace(shape, x=x, y=y))
    width, height = (scene.height, scene.width) if swap else (scene.width, scene.height)
    return Scene(width, height, tuple(shapes))


_Chunk = tuple[int, NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int8], list[Scene]]


def _draw_chunk(job: tuple[int, int, int, int]) -> _Chunk:
    seed, start, count, side = job
    rng = np.random.default_rng([seed, 1, start])
    pixels = np.empty((count, side, side, 3), np.uint8)
    labels = np.empty((count, CELLS, CELLS), np.uint8)
    edges = np.empty((count, GRID, GRID, 3), np.int8)
    scenes = []
    for row in range(count):
        scene = random_scene(rng)
        pixels[row] = np.asarray(fit(render(scene, rng), side))
        labels[row] = label_map(scene, CELLS)
        edges[row] = edge_map(scene, GRID)
        bare = tuple(replace(shape, outline=()) for shape in scene.shapes)
        scenes.append(replace(scene, shapes=bare))
    return start, pixels, labels, edges, scenes


def draw_store(
    folder: Path, count: int, side: int, seed: int, processes: int,
    progress: Callable[[int], None],
) -> ImageStore:  # fmt: skip
    """Opens the store in `folder`, drawing it first if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"images-{count}-{side}-{seed}"
    done = stem.with_suffix(".scenes")
    mode: Literal["r", "w+"] = "r" if done.exists() else "w+"
    pixels = np.memmap(stem.with_suffix(".pixels"), np.uint8, mode, shape=(count, side, side, 3))
    labels = np.memmap(stem.with_suffix(".labels"), np.uint8, mode, shape=(count, CELLS, CELLS))
    edges = np.memmap(stem.with_suffix(".edges"), np.int8, mode, shape=(count, GRID, GRID, 3))
    if not done.exists():
        scenes: dict[int, list[Scene]] = {}
        jobs = [(seed, s, min(CHUNK, count - s), side) for s in range(0, count, CHUNK)]
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            for start, drawn, cells, directions, chunk in pool.imap_unordered(_draw_chunk, jobs):
                pixels[start : start + len(chunk)] = drawn
                labels[start : start + len(chunk)] = cells
                edges[start : start + len(chunk)] = directions
                scenes[start] = chunk
                progress(len(chunk))
        for array in (pixels, labels, edges):
            array.flush()
        ordered = [scene for start in sorted(scenes) for scene in scenes[start]]
        done.write_bytes(pickle.dumps(ordered))
    return ImageStore(pixels, labels, edges, pickle.loads(done.read_bytes()))
