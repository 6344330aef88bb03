"""A LoRA adapter: whether it fits a model, and its deltas, which are applied as tensors are read.

A low-rank pair changes a matrix by ``scale * B A`` (Hu et al. 2021, arXiv 2106.09685, section 4.1),
with ``scale = alpha / r``, or ``alpha / sqrt(r)`` for rank-stabilized adapters. Besides the pairs,
whole tensors may replace the checkpoint's: peft's `modules_to_save`, and what MobileVLM's own
training writes as `non_lora_trainables.bin`, the projector above all.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

import numpy as np

from mvlm.models.checkpoint.adapter.delta import LoraDelta
from mvlm.models.checkpoint.names import EMBEDDINGS, HEAD, TABLE, Shape, is_never_computed
from mvlm.models.checkpoint.report import shape_text
from mvlm.models.weight_files.tensor_file import Array, Weights, listed
from mvlm.runtime.errors import CheckpointError

_UNTIE = (
    "Untie the checkpoint: store a copy of the embedding as lm_head.weight, and set "
    "`tie_word_embeddings` in its config.json to false."
)
_RIGHT_MODEL = "Give the checkpoint that it was trained on."


class Tensors(Protocol):
    """What an adapter is merged into, without its changes."""

    def names(self) -> tuple[str, ...]:
        """All tensors' names."""

    def shape(self, name: str) -> Shape:
        """A tensor's shape."""

    def read(self, name: str) -> Array:
        """A tensor's values."""


class Replacement(NamedTuple):
    """A tensor that replaces one of the checkpoint's.

    Attributes:
        weights: What has it.
        name: Its name there.
        of_module: Whether peft saved it with its module (`modules_to_save`), which it then has
            twice, and not MobileVLM's training, which trains the model's own.
    """

    weights: Weights
    name: str
    of_module: bool

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.weights.shape(self.name)

    def read(self) -> Array:
        """The tensor."""
        return self.weights.read(self.name)


class Adapter:
    """The deltas of one adapter by the names of the checkpoint's tensors.

    Args:
        folder: Where it comes from.
        files: Every file that it consists of.
        weights: What has the pairs.
        deltas: By the names of the tensors.
        replaced: What is replaced.
    """

    def __init__(
        self,
        folder: Path,
        files: tuple[Path, ...],
        weights: Weights,
        deltas: Mapping[str, LoraDelta],
        replaced: Mapping[str, Replacement],
    ) -> None:
        self.folder = folder
        self.files = files
        self._weights = weights
        self._deltas = deltas
        self._replaced = replaced
        self._unread = {*deltas, *replaced}

    def apply(self, name: str, base: Array) -> Array:
        """Return a tensor as the adapter wants it: `base` itself where it changes nothing."""
        self._unread.discard(name)
        if name in self._replaced:
            base = self._replaced[name].read()
        delta = self._deltas.get(name)
        return base if delta is None else delta.apply(base, self._weights)

    def check(
        self, expected: Mapping[str, Shape], used: Set[str] | None, checkpoint: Tensors
    ) -> None:
        """Compare with the tensors that the model computes with.

        Reads no data, but where the adapter has tensors of layers that are never computed: they
        must change nothing, which is what training leaves there.

        Args:
            expected: The tensors that a model of this kind has.
            used: Those of them that will be read; all if None.
            checkpoint: The tensors that the adapter is to change.

        Raises:
            CheckpointError: The adapter is for a model of other names or shapes, or a part of it
                would have no effect.
        """
        touched = self._deltas.keys() | self._replaced.keys()
        beyond = {name for name in touched - expected.keys() if is_never_computed(name, expected)}
        self._check_tied(touched, expected)
        strange = touched - expected.keys() - beyond
        if strange:
            self._refuse(f"it changes tensors that the model does not have: {listed(strange)}")
        self._check_shapes(expected)
        changing = {name for name in beyond if not self._is_zero(name, checkpoint)}
        if changing:
            raise CheckpointError(
                f"the adapter {self.folder} changes what the model never computes",
                expected="changes of the tower's layers up to the one whose output is used",
                found=listed(changing),
                fix="Remove these tensors from the adapter, or train it without these modules.",
            )
        self._unread -= beyond
        unused = set() if used is None else (touched & expected.keys()) - used
        if unused:
            raise CheckpointError(
                f"the adapter {self.folder} changes what is not taken from the checkpoint here",
                expected="changes of what is",
                found=listed(unused),
                fix="Merge it into the checkpoint first, and do without --lora.",
            )

    def check_all_read(self) -> None:
        """Ask that every change has been applied, after all has been read.

        Raises:
            CheckpointError: One has not: it is lost in the result.
        """
        if self._unread:
            raise CheckpointError(
                f"the adapter {self.folder} was not merged as a whole",
                expected="every tensor used",
                found=f"unused: {listed(self._unread)}",
                fix="Report this: it is a fault of mvlm.",
            )

    def _check_tied(self, touched: Set[str], expected: Mapping[str, Shape]) -> None:
        """Refuse changes of one of two tables where the model has one for both.

        peft changes the embedding or the head alone, or each by itself; and its own merging of
        such an adapter does not compute what the adapter computes.
        """
        if HEAD in expected or TABLE not in expected:
            return
        apart = {HEAD} & touched
        replacement = self._replaced.get(TABLE)
        if TABLE in self._deltas or (replacement is not None and replacement.of_module):
            apart |= {TABLE}
        if apart:
            raise CheckpointError(
                f"the adapter {self.folder} changes {listed(apart)} by itself, but the model's "
                "embedding is its output head as well (`tie_word_embeddings`)",
                fix=_UNTIE,
            )

    def _check_shapes(self, expected: Mapping[str, Shape]) -> None:
        for name, delta in self._deltas.items():
            wanted = expected.get(name)
            if wanted is None:
                continue
            if delta.shape != wanted:
                self._refuse(f"its change of {name}", wanted, delta.shape)
            if delta.is_embedding != (name in EMBEDDINGS):
                self._refuse(
                    f"its change of {name} is {'' if delta.is_embedding else 'not '}"
                    "that of an embedding"
                )
        for name, replacement in self._replaced.items():
            if name in expected and replacement.shape != expected[name]:
                self._refuse(f"its {name}", expected[name], replacement.shape)

    def _is_zero(self, name: str, checkpoint: Tensors) -> bool:
        """Whether a tensor that is never computed is left as it is in the checkpoint."""
        delta = self._deltas.get(name)
        if delta is not None and not delta.is_zero(self._weights):
            return False
        replacement = self._replaced.get(name)
        if replacement is None:
            return True
        if name not in checkpoint.names() or checkpoint.shape(name) != replacement.shape:
            return False
        own, base = replacement.read(), checkpoint.read(name)
        # Either may have been rounded to the other's dtype when it was saved.
        return np.array_equal(own, base.astype(own.dtype)) or np.array_equal(
            own.astype(base.dtype), base
        )

    def _refuse(
        self, problem: str, expected: Shape | None = None, found: Shape | None = None
    ) -> NoReturn:
        raise CheckpointError(
            f"the adapter {self.folder} is for another model: {problem}",
            expected=None if expected is None else shape_text(expected),
            found=None if found is None else shape_text(found),
            fix=_RIGHT_MODEL,
        )
