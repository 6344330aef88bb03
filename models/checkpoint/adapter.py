"""A LoRA adapter as peft saves it, merged into a checkpoint's tensors while they are read.

A low-rank pair changes a matrix by ``scale * B A`` (Hu et al. 2021, arXiv 2106.09685, section 4.1),
with ``scale = alpha / r``, or ``alpha / sqrt(r)`` for rank-stabilized adapters. Beside the pairs,
whole tensors may replace the checkpoint's: peft's `modules_to_save`, and what MobileVLM's own
training writes as `non_lora_trainables.bin`, the projector above all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvlm.models.checkpoint.names import Shape, harmless
from mvlm.models.checkpoint.report import shape_text
from mvlm.models.checkpoint.tensor_file import Array, listed
from mvlm.models.checkpoint.weights import Weights, open_weights
from mvlm.models.config.document import Document, read_document
from mvlm.runtime.errors import CheckpointError, UsageError

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TRAINED = ("non_lora_trainables.bin",)
# peft wraps the model twice, and names it twice.
_PREFIX = "base_model.model."
_SUFFIXES = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_A": "embedding_a",
    ".lora_embedding_B": "embedding_b",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector": "magnitude",
}
_NAME = re.compile(r"[\w.]+")
_PAIRS = ({"a", "b"}, {"a", "b", "magnitude"}, {"embedding_a", "embedding_b"})


@dataclass(frozen=True)
class Change:
    """What an adapter does to one matrix.

    Attributes:
        names: The adapter's own tensors by their role: ``a`` and ``b``, or ``embedding_a`` and
            ``embedding_b``; and for DoRA ``magnitude``.
        scale: Of the product.
    """

    names: Mapping[str, str]
    scale: float

    def apply(self, base: Array, weights: Weights) -> Array:
        """Return the changed matrix in float32; DoRA as in arXiv 2402.09353, equation 5."""
        is_embedding = "embedding_a" in self.names
        names = (self.names[f"embedding_{key}" if is_embedding else key] for key in "ab")
        # Whoever packs the result refuses infinities.
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            a, b = (weights.read(name).astype(np.float32) for name in names)
            product = (b @ a).T if is_embedding else b @ a
            merged: Array = base.astype(np.float32) + np.float32(self.scale) * product
            if "magnitude" in self.names:
                magnitude = weights.read(self.names["magnitude"]).astype(np.float32).reshape(-1)
                merged *= (magnitude / np.linalg.norm(merged, axis=1))[:, None]
        return merged


class Adapter:
    """The changes of one adapter by the names of the checkpoint's tensors.

    Args:
        folder: Where it comes from.
        weights: The pairs.
        changes: What is changed.
        replaced: What is replaced: the checkpoint's name, and where the new tensor is.
    """

    def __init__(
        self,
        folder: Path,
        weights: Weights,
        changes: Mapping[str, Change],
        replaced: Mapping[str, tuple[Weights, str]],
    ) -> None:
        self.folder = folder
        self._weights = weights
        self._changes = changes
        self._replaced = replaced

    def files(self) -> tuple[Path, ...]:
        """Every file that the adapter consists of."""
        holders = {id(weights): weights for weights, _ in self._replaced.values()}
        holders[id(self._weights)] = self._weights
        found = {file for weights in holders.values() for file in weights.files()}
        return (self.folder / CONFIG, *sorted(found))

    def apply(self, name: str, base: Array) -> Array:
        """Return a tensor as the adapter wants it: `base` itself where it changes nothing."""
        if name in self._replaced:
            weights, own_name = self._replaced[name]
            base = weights.read(own_name)
        change = self._changes.get(name)
        return base if change is None else change.apply(base, self._weights)

    def check(self, expected: Mapping[str, Shape]) -> None:
        """Compare with the tensors that the model computes with; reads no data.

        Raises:
            CheckpointError: The adapter is for a model of other names or shapes.
        """
        touched = self._changes.keys() | self._replaced.keys()
        strange = touched - expected.keys() - harmless(touched, expected)
        if strange:
            self._refuse(f"it changes tensors that the model does not have: {listed(strange)}")
        for name, change in self._changes.items():
            found = self._product_shape(change)
            if name in expected and found != expected[name]:
                self._refuse(f"its change of {name}", expected[name], found)
        for name, (weights, own_name) in self._replaced.items():
            found = weights.shape(own_name)
            if name in expected and found != expected[name]:
                self._refuse(f"its {name}", expected[name], found)

    def _product_shape(self, change: Change) -> Shape | None:
        """The shape of B A, transposed for an embedding; None where the two do not go together."""
        shapes = {key: self._weights.shape(name) for key, name in change.names.items()}
        is_embedding = "embedding_a" in shapes
        a, b = (shapes[f"embedding_{key}" if is_embedding else key] for key in "ab")
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            return None
        magnitude = shapes.get("magnitude")
        if magnitude is not None and math.prod(magnitude) != b[0]:
            return None
        return (a[1], b[0]) if is_embedding else (b[0], a[1])

    def _refuse(
        self, problem: str, expected: Shape | None = None, found: Shape | None = None
    ) -> None:
        raise CheckpointError(
            f"the adapter {self.folder} is for another model: {problem}",
            expected=None if expected is None else shape_text(expected),
            found=None if expected is None else "none" if found is None else shape_text(found),
            fix="Give the checkpoint that it was trained on.",
        )


def open_adapter(folder: Path, rename: Callable[[str], str] = lambda name: name) -> Adapter:
    """Open a LoRA adapter's folder, without reading any tensor.

    Args:
        folder: Where it is.
        rename: Gives a tensor of the checkpoint's folder the name that the model knows it by.

    Raises:
        UsageError: `folder` is not an adapter's.
        ConfigError: `adapter_config.json` asks for what is not supported.
        CheckpointError: Weights are absent, damaged, or not those of an adapter.
    """
    if not (folder / CONFIG).is_file():
        raise UsageError(
            f"`--lora {folder}` is not the folder of an adapter", expected=f"a folder with {CONFIG}"
        )
    config = read_document(folder / CONFIG)
    _check_supported(config)
    weights = open_weights(folder, _WEIGHTS)
    roles: dict[str, dict[str, str]] = {}
    replaced: dict[str, tuple[Weights, str]] = {}
    for own_name in weights.names():
        name = own_name.removeprefix(_PREFIX)
        suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), None)
        if suffix is not None:
            roles.setdefault(name.removesuffix(suffix), {})[_SUFFIXES[suffix]] = own_name
        elif "lora_" in name:
            raise CheckpointError(f"{folder}: the tensor {own_name} is of an unknown kind")
        else:
            # Saved whole beside a pair: an embedding table that may have been resized.
            replaced[rename(name.replace(".base_layer.", "."))] = (weights, own_name)
    changes = {
        rename(f"{module}.weight"): _change(config, module, names, weights)
        for module, names in roles.items()
    }
    for file in _TRAINED:
        if (folder / file).is_file():
            trained = open_weights(folder, (file,))
            for name in trained.names():
                replaced[rename(_trained_name(name))] = (trained, name)
    return Adapter(folder, weights, changes, replaced)


def _change(config: Document, module: str, names: Mapping[str, str], weights: Weights) -> Change:
    if set(names) not in _PAIRS:
        raise CheckpointError(
            f"{config.name}: the change of {module} is not whole",
            expected="a pair lora_A and lora_B",
            found=listed(names.values()),
        )
    rank = weights.shape(names.get("a") or names["embedding_a"])[0]
    return Change(names, _scale(config, module, rank))


def _trained_name(name: str) -> str:
    """The checkpoint's name of a tensor in `non_lora_trainables.bin`."""
    name = name.removeprefix("base_model.")
    return name.removeprefix("model.") if name.startswith("model.model.") else name


def _check_supported(config: Document) -> None:
    if config.get("peft_type", "LORA") != "LORA":
        config.refuse("peft_type", "'LORA'")
    if config.get("bias", "none") != "none":
        config.refuse("bias", "'none': the decoder's linear layers have no bias")
    for key in ("fan_in_fan_out", "lora_bias"):
        if config.flag(key, False):
            config.refuse(key, "false")


def _scale(config: Document, module: str, rank: int) -> float:
    """The scale of one module's change, as peft works it out from its configuration."""
    declared = _pattern_value(config, "rank_pattern", module, config.require("r"))
    if declared != rank:
        raise CheckpointError(
            f"{config.name}: the rank of {module}",
            expected=declared,
            found=rank,
            fix="Download the adapter again.",
        )
    alpha = _pattern_value(config, "alpha_pattern", module, config.require("lora_alpha"))
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        config.refuse("lora_alpha", "a number")
    return alpha / (math.sqrt(rank) if config.flag("use_rslora", False) else rank)


def _pattern_value(config: Document, key: str, module: str, default: object) -> object:
    """The value of the first pattern that fits a module: its name's last parts, or `^` and all.

    peft takes regular expressions. Names are what it writes there by itself, and an expression
    from elsewhere could keep us busy for ever.
    """
    if key not in config:
        return default
    patterns = config.section(key)
    for pattern, value in patterns.values.items():
        name = pattern.removeprefix("^")
        if not _NAME.fullmatch(name):
            patterns.refuse(pattern, "the name of a module, not another regular expression")
        if module == name or (name == pattern and module.endswith(f".{name}")):
            return value
    return default
