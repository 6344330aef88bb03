"""All weight files of one folder, seen as one set of named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mvlm.models.weight_files.tensor_file import Array, TensorFile


class Weights:
    """The tensors of one folder, by the names that its files give them.

    Args:
        holders: For each tensor the open file that holds it.
        index: The file that says which file holds what, if there are several.
    """

    def __init__(self, holders: Mapping[str, TensorFile], index: Path | None = None) -> None:
        self._holders = holders
        self._index = index

    def names(self) -> tuple[str, ...]:
        """All tensors' names, sorted."""
        return tuple(sorted(self._holders))

    def files(self) -> tuple[Path, ...]:
        """The files that the weights come from, sorted, with the index."""
        files = {holder.path for holder in self._holders.values()}
        return tuple(sorted(files | ({self._index} if self._index else set())))

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; KeyError if there is no such tensor."""
        return self._holders[name].tensors[name].shape

    def dtype(self, name: str) -> str:
        """A tensor's dtype by numpy's name; KeyError if there is no such tensor."""
        return self._holders[name].tensors[name].dtype

    def nbytes(self, name: str) -> int:
        """Bytes of a tensor in its file; KeyError if there is no such tensor."""
        return self._holders[name].tensors[name].nbytes

    def read(self, name: str) -> Array:
        """One tensor; KeyError if there is none of that name.

        Raises:
            CheckpointError: It is not stored as float32, float16 or bfloat16.
        """
        return self._holders[name].read(name)
