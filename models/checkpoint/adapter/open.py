"""Opens an adapter's folder: its configuration, its pairs, and other tensors trained with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mvlm.models.checkpoint.adapter.adapter import Adapter, Replacement
from mvlm.models.checkpoint.adapter.delta import LoraDelta, make_delta
from mvlm.models.checkpoint.adapter.options import read_options
from mvlm.models.checkpoint.adapter.tensors import refuse_second, sort_tensors, trained_tensors
from mvlm.models.json_config import read_json_config
from mvlm.models.weight_files.open import open_weights
from mvlm.runtime.errors import UsageError

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TRAINED = "non_lora_trainables.bin"


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
    options = read_options(read_json_config(folder / CONFIG))
    weights = open_weights(folder, _WEIGHTS)
    tensors = sort_tensors(folder, weights, options)
    deltas: dict[str, LoraDelta] = {}
    for module, names in tensors.pairs.items():
        name, rank = rename(f"{module}.weight"), options.rank_of(module)
        refuse_second(folder, name, deltas)
        deltas[name] = make_delta(module, names, weights, rank, options.scale_of(module))
    replaced: dict[str, Replacement] = {}
    for plain, own in tensors.whole.items():
        refuse_second(folder, rename(plain), replaced)
        replaced[rename(plain)] = Replacement(weights, own, of_module=True)
    files = [folder / CONFIG, *weights.files()]
    if (folder / _TRAINED).is_file():
        trained = open_weights(folder, (_TRAINED,))
        files += trained.files()
        for plain, own in trained_tensors(folder, trained).items():
            refuse_second(folder, rename(plain), replaced)
            replaced[rename(plain)] = Replacement(trained, own, of_module=False)
    return Adapter(folder, tuple(files), weights, deltas, replaced)
