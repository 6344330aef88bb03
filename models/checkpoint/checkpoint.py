"""A MobileVLM checkpoint: the folder's own weights joined with its vision tower's."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

from mvlm.models.checkpoint.adapter import Adapter, open_adapter
from mvlm.models.checkpoint.names import (
    CLIP_PREFIX,
    TOWER_PREFIX,
    Shape,
    harmless,
)
from mvlm.models.checkpoint.report import Report
from mvlm.models.config.mlc import checkpoint_document
from mvlm.models.config.read import projector_config, tower_name
from mvlm.models.config.tower import V2_TOWER_PREFIX, find_vision_tower
from mvlm.models.weight_files.open import open_weights
from mvlm.models.weight_files.tensor_file import FLOAT_DTYPES, Array, Weights, check_finite


class Checkpoint:
    """A model's tensors by name, read one at a time.

    Args:
        language: The weights of the checkpoint's own folder.
        tower: The weights of the tower's folder, for a MobileVLM V1. Without it the tower is
            taken from inside `language`, if it is there.
        adapter: What is merged into the tensors as they are read.
        allow_nonfinite: Take 0 for NaN, and the largest float16 for infinity, as tensors are read.
    """

    def __init__(
        self,
        language: Weights,
        tower: Weights | None = None,
        adapter: Adapter | None = None,
        *,
        allow_nonfinite: bool = False,
    ) -> None:
        sources = {_own_name(name, tower is None): (language, name) for name in language.names()}
        if tower is not None:
            sources.update({_tower_name(name): (tower, name) for name in tower.names()})
        self._sources = sources
        self._weights = (language,) if tower is None else (language, tower)
        self._adapter = adapter
        self._allow_nonfinite = allow_nonfinite

    def names(self) -> tuple[str, ...]:
        """All tensors' names, sorted; the tower's begin with `vision_tower.vision_model.`."""
        return tuple(sorted(self._sources))

    def files(self) -> tuple[Path, ...]:
        """Every file that the tensors come from."""
        files = tuple(file for weights in self._weights for file in weights.files())
        return files + (self._adapter.files if self._adapter else ())

    def shape(self, name: str) -> Shape:
        """A tensor's shape; KeyError if there is no such tensor."""
        weights, own_name = self._sources[name]
        return weights.shape(own_name)

    def dtype(self, name: str) -> str:
        """A tensor's dtype by numpy's name; KeyError if there is no such tensor."""
        weights, own_name = self._sources[name]
        return weights.dtype(own_name)

    def nbytes(self, name: str) -> int:
        """Bytes of a tensor in its file; KeyError if there is no such tensor."""
        weights, own_name = self._sources[name]
        return weights.nbytes(own_name)

    def read(self, name: str) -> Array:
        """One tensor, as a writable array; KeyError if there is none.

        It has its own dtype, or float32 where an adapter or `allow_nonfinite` changes it.

        Raises:
            CheckpointError: It is not stored as float32, float16 or bfloat16; or it holds NaN or
                infinity, by itself or with the adapter merged.
        """
        weights, own_name = self._sources[name]
        tensor = weights.read(own_name)
        if self._adapter is not None:
            tensor = self._adapter.apply(name, tensor)
        return check_finite(name, tensor, allow=self._allow_nonfinite)

    def check(self, expected: Mapping[str, Shape], used: Set[str] | None = None) -> Report:
        """Compare names, shapes and dtypes with what a model needs; reads no data.

        Args:
            expected: The tensors that a model of this kind has.
            used: Those of them that must be there and will be read; all if None.

        Raises:
            CheckpointError: The adapter, if there is one, is for another model, or a part of it
                would have no effect.
        """
        self.check_adapter(expected, used)
        found = self._sources.keys()
        ignored = harmless(found, expected)
        shared = sorted(found & expected.keys())
        return Report(
            missing=tuple(sorted((expected.keys() if used is None else used) - found)),
            unexpected=tuple(sorted(found - expected.keys() - ignored)),
            misshapen=tuple(
                (name, expected[name], self.shape(name))
                for name in shared
                if self.shape(name) != expected[name]
            ),
            mistyped=tuple(
                (name, self.dtype(name)) for name in shared if self.dtype(name) not in FLOAT_DTYPES
            ),
            ignored=tuple(sorted(ignored)),
        )

    def check_adapter(self, expected: Mapping[str, Shape], used: Set[str] | None = None) -> None:
        """Ask that an adapter, if there is one, is for this model, and that none of it is lost.

        Args:
            expected: The tensors that a model of this kind has.
            used: Those of them that will be read; all if None.

        Raises:
            CheckpointError: It is for another model, or a part of it would have no effect.
        """
        if self._adapter is not None:
            self._adapter.check(expected, used, Checkpoint(*self._weights))

    def check_adapter_used(self) -> None:
        """Ask that all that an adapter changes has been read, when everything was.

        Raises:
            CheckpointError: Something was not: the adapter is merged in part.
        """
        if self._adapter is not None:
            self._adapter.check_all_read()


def open_checkpoint(
    folder: Path,
    vision_tower: Path | None = None,
    adapter: Path | None = None,
    *,
    allow_nonfinite: bool = False,
) -> Checkpoint:
    """Open a checkpoint's weights, without reading any tensor.

    A MobileVLM V1 takes its tower from the tower's own folder, even where the checkpoint holds
    one too; a V2 takes it from the checkpoint, and so does whatever we wrote in mlc-llm's format.

    Args:
        folder: The checkpoint.
        vision_tower: The folder of its CLIP, where it would not be found; unused by V2.
        adapter: The folder of a LoRA adapter to merge.
        allow_nonfinite: Replace NaN and infinity, as tensors are read, instead of refusing them.

    Raises:
        CheckpointError: Weights are absent, damaged or cut short.
        ConfigError: `config.json` does not tell what the model is, or no tower was found.
        UsageError: `vision_tower` is not the folder of a CLIP, or `adapter` not one of a LoRA.
    """
    config = checkpoint_document(folder)
    language, tower = open_weights(folder), None
    inside = (
        "mm_vision_tower" not in config
        or projector_config(config).is_v2
        or any(name.startswith(TOWER_PREFIX) for name in language.names())
    )
    if not inside:
        tower = open_weights(find_vision_tower(folder, tower_name(config), vision_tower))
    merged = None
    if adapter is not None:
        # To an adapter the tower is a part of the model, wherever its tensors come from.
        merged = open_adapter(adapter, lambda name: _own_name(name, tower_inside=True))
    return Checkpoint(language, tower, merged, allow_nonfinite=allow_nonfinite)


def _own_name(name: str, tower_inside: bool) -> str:
    """The name of one of the checkpoint folder's tensors."""
    if tower_inside and name.startswith(V2_TOWER_PREFIX):
        return TOWER_PREFIX + name.removeprefix(V2_TOWER_PREFIX)
    return name


def _tower_name(name: str) -> str:
    """The name of one of the tower folder's tensors; its text half keeps its own names."""
    if name.startswith(CLIP_PREFIX):
        return TOWER_PREFIX + name.removeprefix(CLIP_PREFIX)
    return name
