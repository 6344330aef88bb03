"""Quantizes SmolLM2 by llama.cpp or ik_llama.cpp, and judges it there.

A process of its own: both tools bring a library of the same name. :func:`run_in_child` starts it
with a request, a JSON file, and reads the reply from another.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mvlm.bench.peers.catalogue import PEERS
from mvlm.bench.peers.runner import Setup
from mvlm.bench.quality.importance import read_importance
from mvlm.bench.quality.judgement import judge, read_logits
from mvlm.bench.quality.results import StoredSize
from mvlm.bench.quality.row import RowFigures
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.start_module import module_command

_BEGINNING = 1  # SmolLM2's <|im_start|>
_LAYER, _ENDS = "blk.", ("token_embd.weight", "output.weight")
_ERROR = 2


@dataclass(frozen=True)
class GgmlRequest:
    """What is to be judged.

    Attributes:
        tool: Its name in the catalogue of peers.
        file_type: As its quantizer names it; None for the file as it is.
        whole: The model in f32.
        importance: The importance matrix; none if None.
        sequences: The ids that are judged.
        reference: Float32's logits.
        folder: For the quantized file, for the moment.
        threads: For the tool.
    """

    tool: str
    file_type: str | None
    whole: str
    importance: str | None
    sequences: list[list[int]]
    reference: str
    folder: str
    threads: int


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a GGUF file.

    Attributes:
        name: Its name.
        kind: Its type.
        weights: Its elements.
        nbytes: Its bytes.
        dimensions: How many it has.
    """

    name: str
    kind: str
    weights: int
    nbytes: int
    dimensions: int


def run_in_child(request: GgmlRequest) -> RowFigures:
    """Quantize and judge.

    Raises:
        MvlmError: The tool fails.
    """
    folder = Path(request.folder)
    asked, answered = folder / "request.json", folder / "reply.json"
    asked.write_text(json.dumps(asdict(request)))
    done = subprocess.run(
        module_command("mvlm.bench.quality.ggml_process", str(asked), str(answered)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if done.returncode != 0 or not answered.is_file():
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise MvlmError(f"{request.tool} does not judge {request.file_type}", found=said[0])
    return RowFigures.from_json(json.loads(answered.read_text()))


def stored_size(tensors: list[StoredTensor]) -> StoredSize:
    """Return what a GGUF file's weights take, and the types of its matrices."""
    layers = [each for each in tensors if each.name.startswith(_LAYER) and each.dimensions == 2]
    nbytes = sum(each.nbytes for each in tensors)
    ends = [each.kind for each in tensors if each.name in _ENDS]
    return StoredSize(
        layer_bits=8 * sum(each.nbytes for each in layers) / sum(each.weights for each in layers),
        all_bits=8 * nbytes / sum(each.weights for each in tensors),
        nbytes=nbytes,
        layers=type_shares(layers),
        ends=" / ".join(dict.fromkeys(ends)),
    )


def type_shares(tensors: list[StoredTensor]) -> str:
    """Name the types of some matrices, each with its share of the weights if there are several."""
    weights: Counter[str] = Counter()
    for each in tensors:
        weights[each.kind] += each.weights
    if len(weights) == 1:
        return next(iter(weights))
    total = weights.total()
    return ", ".join(f"{kind} {count / total:.0%}" for kind, count in weights.most_common())


def answer(request: GgmlRequest) -> RowFigures:
    """Quantize and judge in this process."""
    tool: Any = import_module(PEERS[request.tool].module)
    file = Path(request.whole)
    if request.file_type is not None:
        importance = read_importance(Path(request.importance)) if request.importance else None
        file = Path(request.folder) / "model.gguf"
        tool.quantize(Path(request.whole), file, request.file_type, importance)
    runner, sequences = _open(tool, file, request), np.array(request.sequences, np.int64)
    judgement = judge(sequences, read_logits(Path(request.reference)), runner.all_logits)
    return RowFigures(stored_size(_tensors(Path(request.whole), runner)), judgement)


def _open(tool: Any, file: Path, request: GgmlRequest) -> Any:
    reference = np.load(request.reference, mmap_mode="r", allow_pickle=False)
    setup = Setup(
        files={"model": str(file)},
        threads=request.threads,
        context=len(request.sequences[0]),
        vocabulary=reference.shape[-1],
        bos=_BEGINNING,
        image=None,
        has_vision=False,
    )
    return tool.open_runner(setup)


def _tensors(whole: Path, runner: Any) -> list[StoredTensor]:
    """Return the tensors of the f32 file as the tool has stored them.

    The package gguf reads none of ik_llama.cpp's own types.
    """
    import gguf

    tensors = gguf.GGUFReader(whole).tensors
    stored = runner.stored_tensors([each.name for each in tensors])
    return [
        StoredTensor(each.name, kind, int(each.n_elements), nbytes, len(each.shape))
        for each in tensors
        for kind, nbytes in [stored[each.name]]
    ]


def main() -> None:
    """Answer the request of the first argument to the file of the second."""
    request = GgmlRequest(**json.loads(Path(sys.argv[1]).read_text()))
    try:
        figures = answer(request)
    except MvlmError as error:
        print(error, file=sys.stderr)
        sys.exit(_ERROR)
    Path(sys.argv[2]).write_text(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
