"""Float32's logits of the judged text, which all rows are compared with: our own build's.

They are compared with torch's when they are made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mvlm.bench.quality.judgement import FloatArray, IdArray, write_logits
from mvlm.bench.quality.ours import FLOAT32, OurRow, model_logits
from mvlm.bench.quality.results import result_key
from mvlm.bench.quality.row import Bench
from mvlm.bench.quality.texts import sequences_digest
from mvlm.compile.driver import compile_job
from mvlm.compile.provenance import files_digest
from mvlm.runtime.artifact.verify import digest_file
from mvlm.runtime.errors import MvlmError

TOLERANCE = 1e-3
"""Of logits, whose magnitude is up to some tens: sums of thousands of float32 products in two
orders."""


def prepare_bench(
    folder: Path,
    checkpoint: Path,
    sequences: IdArray,
    threads: int,
    notice: Callable[[str], None] = lambda line: None,
) -> Bench:
    """Return what all rows are judged by; float32's logits are made if they are not there yet.

    Args:
        folder: Where files are kept.
        checkpoint: The model in float32.
        sequences: The ids that are judged.
        threads: For all tools.
        notice: Called with a line before they are made, and with how close torch's are.

    Raises:
        MvlmError: Ours and torch's logits differ.
    """
    digest = files_digest([checkpoint / "model.safetensors"])
    job = OurRow(FLOAT32).plan(checkpoint)
    key = result_key(job.key(digest), sequences_digest(sequences))
    file = folder / f"float32-{key}.npy"
    if not file.is_file():
        notice("compiling the float32 reference, once")
        with tempfile.TemporaryDirectory(dir=folder) as name:
            artifact = Path(name) / "artifact"
            compile_job(job, artifact)
            logits_of = model_logits(artifact, threads)
            first = sequences[0].tolist()
            distance = check_against_torch(logits_of(first), torch_logits(checkpoint, first))
            notice(f"float32 logits differ from torch's by {distance:.1e} at most")
            write_logits(sequences, logits_of, file)
        _drop_others(file)
    reference = result_key(sequences_digest(sequences), digest_file(file))
    return Bench(folder, checkpoint, digest, sequences, file, reference, threads)


def check_against_torch(ours: FloatArray, theirs: FloatArray) -> float:
    """Return the largest difference of two arrays of logits.

    Raises:
        MvlmError: It is larger than :data:`TOLERANCE`.
    """
    distance = float(np.abs(ours - theirs).max())
    if not distance <= TOLERANCE:
        raise MvlmError(
            "our float32 logits are not torch's", expected=f"within {TOLERANCE}", found=distance
        )
    return distance


def torch_logits(checkpoint: Path, ids: list[int]) -> FloatArray:
    """Return the logits ``(n, V)`` that transformers' LLaMA computes in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        logits: FloatArray = model(torch.tensor([ids])).logits[0].numpy()
    return logits


def _drop_others(file: Path) -> None:
    """Remove the logits of earlier builds and texts: each file has 800 MB."""
    for other in file.parent.glob("float32-*.npy"):
        if other != file:
            other.unlink(missing_ok=True)
