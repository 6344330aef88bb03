"""An adapter's tensors by what they are: parts of a pair, or whole tensors of the model."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mvlm.models.checkpoint.adapter.options import LoraOptions
from mvlm.models.weight_files.tensor_file import FLOAT_DTYPES, Weights, listed
from mvlm.runtime.errors import CheckpointError

# peft wraps the model twice, and names it twice.
_PREFIX = "base_model.model."
_ROLES = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_A": "embedding_a",
    ".lora_embedding_B": "embedding_b",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector": "magnitude",
}
# Some times what the names of real adapters have.
_MAX_NAME_LENGTH = 512
# What peft's wrappers put into names, which a plain tensor of a model never has.
_WRAPPED = ("lora_", "token_adapter.", "modules_to_save.")
# Where peft puts the module that it wraps.
_BASE_LAYER = ".base_layer."


@dataclass(frozen=True)
class AdapterTensors:
    """An adapter's tensors.

    Attributes:
        pairs: For each module's name its tensors by role (see `delta.py`).
        whole: For each of the model's names the adapter's own.
    """

    pairs: Mapping[str, Mapping[str, str]]
    whole: Mapping[str, str]


def sort_tensors(folder: Path, weights: Weights, options: LoraOptions) -> AdapterTensors:
    """Sort the tensors of `adapter_model`; reads no data.

    Raises:
        CheckpointError: There are none, one is of an unknown kind or dtype, two are for the same,
            or they are not what the configuration says.
    """
    pairs: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    _check_names(folder, weights)
    for own_name in weights.names():
        name = own_name.removeprefix(_PREFIX)
        if name.endswith(options.training_only):
            continue
        suffix = next((suffix for suffix in _ROLES if name.endswith(suffix)), None)
        if suffix is not None:
            roles = pairs.setdefault(name.removesuffix(suffix), {})
            refuse_second(folder, name, {name} if _ROLES[suffix] in roles else ())
            roles[_ROLES[suffix]] = own_name
        elif any(part in name for part in _WRAPPED):
            raise CheckpointError(
                f"{folder}: the tensor {own_name} is of an unknown kind",
                expected=f"names that end in {' or '.join(_ROLES)}",
                fix="Save the adapter with peft's save_pretrained().",
            )
        else:
            # Saved whole next to a pair: an embedding table that may have been resized.
            plain = name.replace(_BASE_LAYER, ".")
            refuse_second(folder, plain, whole)
            whole[plain] = own_name
    if not pairs and not whole:
        raise CheckpointError(
            f"the adapter {folder} changes nothing: its weights hold no tensor that does",
            expected="pairs of lora_A and lora_B",
            found=listed(weights.names()) or "no tensor",
            fix="Save the adapter again; trained with ZeRO-3 or FSDP, gather its weights first.",
        )
    _check_dtypes(folder, weights)
    _check_magnitudes(folder, pairs, options)
    _check_modules(folder, pairs, whole, options)
    return AdapterTensors(pairs, whole)


def trained_tensors(folder: Path, weights: Weights) -> dict[str, str]:
    """The model's names of the tensors in `non_lora_trainables.bin`, with the file's own.

    MobileVLM's training writes there what it trained besides the pairs, the projector above all,
    under the names of peft's wrapped model.

    Raises:
        CheckpointError: Two are for the same, or one is not of floats.
    """
    _check_names(folder, weights)
    _check_dtypes(folder, weights)
    names: dict[str, str] = {}
    for own_name in weights.names():
        plain = _trained_name(own_name)
        refuse_second(folder, plain, names)
        names[plain] = own_name
    return names


def refuse_second(folder: Path, name: str, known: Container[object]) -> None:
    """Refuse a second tensor for one: which of the two counts cannot be known.

    Raises:
        CheckpointError: `name` is in `known`.
    """
    if name in known:
        raise CheckpointError(
            f"the adapter {folder} has two tensors for {name}",
            expected="one",
            fix="Remove one of them.",
        )


def _trained_name(name: str) -> str:
    plain = name.removeprefix(_PREFIX)
    # Some trainings leave off peft's first name and keep its second.
    if plain.startswith("model.model."):
        plain = plain.removeprefix("model.")
    return plain


def _check_names(folder: Path, weights: Weights) -> None:
    longest = max(map(len, weights.names()), default=0)
    if longest > _MAX_NAME_LENGTH:
        raise CheckpointError(
            f"the adapter {folder} has a tensor with too long a name",
            expected=f"at most {_MAX_NAME_LENGTH} characters",
            found=longest,
        )


def _check_dtypes(folder: Path, weights: Weights) -> None:
    found = {name: weights.dtype(name) for name in weights.names()}
    wrong = [f"{name} ({dtype})" for name, dtype in found.items() if dtype not in FLOAT_DTYPES]
    if wrong:
        raise CheckpointError(
            f"the adapter {folder} has tensors of unsupported dtypes",
            expected=" or ".join(FLOAT_DTYPES),
            found=listed(wrong),
            fix="Save the adapter in one of these dtypes.",
        )


def _check_magnitudes(
    folder: Path, pairs: Mapping[str, Mapping[str, str]], options: LoraOptions
) -> None:
    """Ask that all pairs have magnitude vectors with `use_dora`, and none without."""
    wanted = options.has_magnitudes
    wrong = [module for module, roles in pairs.items() if ("magnitude" in roles) != wanted]
    if wrong:
        raise CheckpointError(
            f"the adapter {folder}: `use_dora` is {str(wanted).lower()}",
            expected=f"{'a' if wanted else 'no'} lora_magnitude_vector of every module",
            found=f"{'none' if wanted else 'one'} of {listed(wrong)}",
            fix="Download the adapter again, or set `use_dora` to what it was trained with.",
        )


def _check_modules(
    folder: Path,
    pairs: Mapping[str, Mapping[str, str]],
    whole: Mapping[str, str],
    options: LoraOptions,
) -> None:
    """Ask that the modules are those that the configuration names: peft drops the others."""
    for problem, wrong in _contradictions(pairs, whole, options):
        if wrong:
            raise CheckpointError(
                f"the adapter {folder} is not what its configuration says: it has {problem}",
                found=listed(wrong),
                fix="Take the tensors and the configuration from the same place.",
            )


def _contradictions(
    pairs: Mapping[str, Mapping[str, str]], whole: Mapping[str, str], options: LoraOptions
) -> Iterator[tuple[str, list[str]]]:
    strange = [module for module in pairs if not options.selection.has(module)]
    yield "pairs of modules that it does not give any", strange
    there = "\n".join(whole)
    lost = [part for part in options.whole_modules if f"{part}." not in there]
    yield "no tensor of what `modules_to_save` names", lost
