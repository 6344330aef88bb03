"""OpenVINO: 4-bit weights in groups of 32, exported by optimum-intel and compressed by nncf.

What OpenVINO GenAI's pipeline for one sequence does is done here call by call, so that reading and
decoding can be timed apart: a model with state, of whose logits only the last position's are
computed. Text alone: it has no MobileVLM. Everything else is OpenVINO's default for low latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvlm.bench.peers.runner import Setup, TextOnlyRunner
from mvlm.runtime.errors import MvlmError

_MODEL = "model"
_COMPRESSION = ("--weight-format", "int4", "--sym", "--group-size", "32", "--ratio", "1.0")
_EXPORT = (
    "optimum.commands.optimum_cli",
    *("export", "openvino", "--task", "text-generation-with-past"),
)


def prepare(checkpoint: Path, vision_tower: Path | None, folder: Path) -> None:
    """Have optimum-intel export the decoder.

    Raises:
        MvlmError: The exporter fails.
    """
    from mvlm.bench.peers.plain_llama import convert_plain_llama

    def command(plain: Path) -> list[str]:
        return [*_EXPORT, *_COMPRESSION, "--model", str(plain), str(folder / _MODEL)]

    what = "optimum-intel's export to OpenVINO"
    convert_plain_llama(checkpoint, vision_tower, folder, what, command)


def files(folder: Path) -> dict[str, str]:
    """Name the model."""
    return {"model": str(folder / _MODEL / "openvino_model.xml")}


def open_runner(setup: Setup) -> OpenVino:
    """Compile the model for this CPU."""
    return OpenVino(setup)


class OpenVino(TextOnlyRunner):
    """A compiled model with its state: the KV cache of one sequence."""

    name = "OpenVINO GenAI"

    def __init__(self, setup: Setup) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(setup.files["model"])
        _keep_last_logits(model)
        options = {"INFERENCE_NUM_THREADS": setup.threads, "PERFORMANCE_HINT": "LATENCY"}
        self._request = core.compile_model(model, "CPU", options).create_infer_request()
        self._inputs = {name for port in model.inputs for name in port.get_names()}
        self._position = self._token = 0

    def facts(self) -> dict[str, Any]:
        """Return versions."""
        from importlib import metadata

        names = ("openvino", "openvino-genai", "optimum-intel", "nncf")
        return {
            "versions": {name: metadata.version(name) for name in names},
            "file": "int4, groups of 32",
            "weight_bytes_per_token": None,
        }

    def prefill(self, ids: Sequence[int]) -> None:
        """Read a prompt into the emptied state."""
        self._request.reset_state()
        self._position = 0
        self._infer(ids)

    def decode(self) -> None:
        """Decode one token."""
        self._infer([self._token])

    def _infer(self, ids: Sequence[int]) -> None:
        begin, end = self._position, self._position + len(ids)
        given = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(begin, end, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        self._request.infer({name: given[name] for name in given.keys() & self._inputs})
        self._position = end
        self._token = int(np.argmax(self._request.get_tensor("logits").data[0, -1]))


def _keep_last_logits(model: Any) -> None:
    """Cut all positions but the last before the output head, as GenAI does."""
    from openvino import opset13

    head = model.output("logits").get_node().input_value(0).get_node()
    if head.get_type_name() != "MatMul":
        raise MvlmError("the exported model", expected="a product at its end", found=str(head))
    last = opset13.slice(head.input_value(0), *(np.array([n]) for n in (-1, -2, -1, 1)))
    head.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()
