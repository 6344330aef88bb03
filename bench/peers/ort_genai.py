"""ONNX Runtime GenAI: 4-bit weights in blocks of 32, multiplied with 8-bit activations.

Its own builder makes the model of a plain LLaMA (int4, block 32, accuracy level 4). Text alone: it
has no MobileVLM. Everything else is its default, but for the number of threads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvlm.bench.peers.runner import Setup, TextOnlyRunner

_MODEL = "model"
_OPTIONS = ("int4_block_size=32", "int4_accuracy_level=4")


def prepare(checkpoint: Path, vision_tower: Path | None, folder: Path) -> None:
    """Have the builder convert the decoder.

    Raises:
        MvlmError: The builder fails.
    """
    from mvlm.bench.peers.plain_llama import convert_plain_llama

    def command(plain: Path) -> list[str]:
        places = ["-i", str(plain), "-o", str(folder / _MODEL), "-c", str(folder / "cache")]
        kind = ["-m", plain.name, "-p", "int4", "-e", "cpu", "--extra_options", *_OPTIONS]
        return ["mvlm.bench.peers.ort_genai_builder", *places, *kind]

    convert_plain_llama(checkpoint, vision_tower, folder, "onnxruntime-genai's builder", command)
    shutil.rmtree(folder / "cache", ignore_errors=True)


def files(folder: Path) -> dict[str, str]:
    """Name the model's folder."""
    return {"model": str(folder / _MODEL)}


def open_runner(setup: Setup) -> OrtGenai:
    """Open the model."""
    return OrtGenai(setup)


class OrtGenai(TextOnlyRunner):
    """A model, and a generator for what was read last."""

    name = "onnxruntime-genai"

    def __init__(self, setup: Setup) -> None:
        import onnxruntime_genai

        self._api, self._setup = onnxruntime_genai, setup
        config = onnxruntime_genai.Config(setup.files["model"])
        options = {"intra_op_num_threads": setup.threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = onnxruntime_genai.Model(config)
        self._generator: Any = None

    def facts(self) -> dict[str, Any]:
        """Return versions, and the size of the weights."""
        from importlib import metadata

        names = ("onnxruntime-genai", "onnxruntime")
        return {
            "versions": {name: metadata.version(name) for name in names},
            "file": "int4, block 32, accuracy level 4",
            "weight_bytes_per_token": None,
        }

    def prefill(self, ids: Sequence[int]) -> None:
        """Read a prompt with a new generator; its first token is chosen here."""
        self._generator = None
        parameters = self._api.GeneratorParams(self._model)
        # With the least as the most, an end of sequence ends nothing.
        length = self._setup.context
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        self._generator = self._api.Generator(self._model, parameters)
        self._generator.append_tokens(list(ids))
        self._generator.generate_next_token()

    def decode(self) -> None:
        """Read the chosen token and choose the next one."""
        self._generator.generate_next_token()
