"""The types of llama.cpp and ik_llama.cpp on SmolLM2: by their own quantizers, in their own tools.

Each tool chooses its tensors' types, as its users get them: a type whose blocks are of 256 weights
does not fit rows of 576, so most of SmolLM2's matrices fall back to one with blocks of 32. It then
computes as always, with 8-bit activations and an f16 KV cache.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from mvlm.bench.peers.catalogue import PEERS
from mvlm.bench.quality.ggml_process import GgmlRequest, run_in_child
from mvlm.bench.quality.importance import measure_importance, write_importance
from mvlm.bench.quality.ours import OurRow
from mvlm.bench.quality.results import result_key
from mvlm.bench.quality.row import Bench, RowFigures
from mvlm.models.interchange import Conversion, convert
from mvlm.models.quantization import DEFAULT_SCHEME
from mvlm.runtime.artifact.staging import atomic_directory

LLAMA_CPP, IK_LLAMA_CPP = "llama.cpp", "ik_llama.cpp"
WHOLE = "F32"

# The types that are compared, with and without an importance matrix.
_TYPES = {
    LLAMA_CPP: (
        "Q8_0",
        "Q4_K_M",
        "Q4_K_S",
        "IQ4_NL",
        "IQ4_XS",
        "Q4_0",
        "Q3_K_M",
        "IQ3_S",
        "IQ3_XXS",
    ),
    IK_LLAMA_CPP: ("IQ4_KS", "IQ4_KSS", "IQ3_KS"),
}
# Its values are rounded by nothing but their largest.
_NEVER_CALIBRATED = ("Q8_0",)
_GGUF = "model-f32.gguf"


@dataclass(frozen=True)
class GgmlRow:
    """One type of a tool.

    Attributes:
        tool: Its name in the catalogue of peers.
        file_type: As its quantizer names it, or :data:`WHOLE` for float32.
        calibrated: Whether it is given an importance matrix.
    """

    tool: str
    file_type: str
    calibrated: bool = False

    @property
    def title(self) -> str:
        """The type."""
        return self.file_type

    @property
    def speed_name(self) -> str:
        """The type: an importance matrix changes no speed."""
        return f"{self.tool} {self.file_type}"

    def key(self, bench: Bench) -> str:
        """Name the tool's version, the type, the data and what judges it."""
        packages = PEERS[self.tool].packages
        versions = [f"{name}=={metadata.version(name)}" for name in packages]
        data = _calibration_digest(bench) if self.calibrated else ""
        own = (self.tool, self.file_type, data, *versions)
        return result_key(bench.checkpoint_digest, bench.reference_digest, *own)

    def measure(self, bench: Bench) -> RowFigures:
        """Quantize and judge it, in a process of its own."""
        whole = _find_or_write_gguf(bench)
        importance = _find_or_measure_importance(bench) if self.calibrated else None
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            return run_in_child(
                GgmlRequest(
                    tool=self.tool,
                    file_type=None if self.file_type == WHOLE else self.file_type,
                    whole=str(whole),
                    importance=None if importance is None else str(importance),
                    sequences=bench.sequences.tolist(),
                    reference=str(bench.reference),
                    folder=folder,
                    threads=bench.threads,
                )
            )


def ggml_rows() -> tuple[GgmlRow, ...]:
    """Return float32 in llama.cpp, and every type with and without an importance matrix."""
    rows = [GgmlRow(LLAMA_CPP, WHOLE)]
    for tool, types in _TYPES.items():
        for file_type in types:
            calibrated = (False,) if file_type in _NEVER_CALIBRATED else (False, True)
            rows += [GgmlRow(tool, file_type, each) for each in calibrated]
    return tuple(rows)


@cache
def _calibration_samples(checkpoint: Path) -> list[tuple[int, ...]]:
    """Return what our schemes are calibrated with, too."""
    data = OurRow(DEFAULT_SCHEME, calibrated=True).plan(checkpoint).calibration_data
    assert data is not None
    return [sample.ids for sample in data.samples]


def _calibration_digest(bench: Bench) -> str:
    return result_key(repr(_calibration_samples(bench.checkpoint)))


def _find_or_write_gguf(bench: Bench) -> Path:
    folder = bench.folder / f"gguf-{bench.checkpoint_digest[:16]}"
    if not (folder / _GGUF).is_file():
        with atomic_directory(folder, _GGUF) as staging:
            convert(bench.checkpoint, staging, Conversion("gguf", "f32"))
    return folder / _GGUF


def _find_or_measure_importance(bench: Bench) -> Path:
    samples = _calibration_samples(bench.checkpoint)
    file = bench.folder / f"importance-{result_key(bench.checkpoint_digest, repr(samples))}.npz"
    if not file.is_file():
        write_importance(measure_importance(bench.checkpoint, samples), file)
    return file
