"""Writes the decoder as a plain LLaMA in the layout of transformers, for tools that convert that.

The tokenizer is a stand-in of the right size: the converters ask for one, and the benchmark, which
hands ids over, uses none.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mvlm.models.checkpoint import expected_tensors, open_checkpoint
from mvlm.models.checkpoint.names import language_tensors
from mvlm.models.config.read import read_config
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.start_module import module_command


def convert_plain_llama(
    checkpoint: Path,
    vision_tower: Path | None,
    folder: Path,
    what: str,
    command: Callable[[Path], Sequence[str]],
) -> None:
    """Have a tool's converter make its files of the decoder as a plain LLaMA.

    Args:
        checkpoint: The model's folder.
        vision_tower: Its CLIP's, where it is not inside.
        folder: Where the plain LLaMA lies meanwhile.
        what: The converter, for messages.
        command: The converter's module and its arguments, given the plain LLaMA's folder.

    Raises:
        MvlmError: The converter fails, or the checkpoint is not usable.
    """
    plain = folder / "plain"
    write_plain_llama(checkpoint, vision_tower, plain)
    done = subprocess.run(
        module_command(*command(plain)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise MvlmError(f"{what} fails", found=said[0])
    shutil.rmtree(plain)


def write_plain_llama(checkpoint: Path, vision_tower: Path | None, folder: Path) -> None:
    """Write `config.json`, `model.safetensors` in float16 and a tokenizer into a new folder.

    Raises:
        CheckpointError: The checkpoint is not whole.
        ConfigError: Its configuration is not usable.
    """
    from safetensors.numpy import save_file

    config = read_config(checkpoint, vision_tower)
    source = open_checkpoint(checkpoint, vision_tower)
    source.check(expected_tensors(config)).raise_if_bad()
    folder.mkdir(parents=True)
    generation = config.generation
    document = {
        **asdict(config.language),
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rope_scaling": {"rope_type": "default", "rope_theta": config.language.rope_theta},
        "torch_dtype": "float16",
        "bos_token_id": generation.bos_token_id,
        "eos_token_id": generation.eos_token_ids[0],
        "pad_token_id": generation.eos_token_ids[0],
    }
    (folder / "config.json").write_text(json.dumps(document, indent=1))
    tensors = {
        name: source.read(name).astype(np.float32).astype(np.float16)
        for name, _ in language_tensors(config.language)
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(folder, config.language.vocab_size)


def _write_tokenizer(folder: Path, size: int) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    special = ("<unk>", "<s>", "</s>")
    words = {word: index for index, word in enumerate(special)}
    words |= {f"w{index}": index for index in range(len(special), size)}
    Tokenizer(WordLevel(words, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
