"""Our schemes on SmolLM2: compiled through the public path and run as a user's model is."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mvlm.bench.peers.catalogue import OURS
from mvlm.bench.quality.judgement import LogitsOf, judge, read_logits
from mvlm.bench.quality.reference_model import TOKENIZER
from mvlm.bench.quality.results import StoredSize, result_key
from mvlm.bench.quality.row import Bench, RowFigures
from mvlm.bench.quality.texts import LENGTH, OwnTokenizerCalibration
from mvlm.compile.driver import compile_job
from mvlm.compile.job import CompileJob, plan_job
from mvlm.models.checkpoint import expected_tensors
from mvlm.models.quantization import SCHEMES, find_scheme, plan_quantization
from mvlm.runtime.artifact import read_manifest
from mvlm.runtime.artifact.weights import TensorEntry, read_weights_index
from mvlm.runtime.engine import Engine
from mvlm.runtime.model import Model

FLOAT32 = "q0f32"

_LAYERS, _NORM = "decoder.layers.", "norm"
_REPORT_SECONDS = 60.0
_FEW_BITS = 4
# What 3-bit MLPs and 4-bit attention come to in SmolLM2: a plan of bits is compared with them.
_MIXED_BITS = 3.5625


@dataclass(frozen=True)
class OurRow:
    """One quantization of ours.

    Attributes:
        language: The scheme of the layers.
        ends: That of embedding and head; what goes with `language` if None.
        calibrated: Whether it is calibrated, with mvlm's default text.
        ffn: The scheme of the layers' MLPs; `language` if None.
        bits: Of a plan of bits; no plan if None. Calibrated rows alone: SmolLM2's layers are
            measured with the text that is calibrated with.
    """

    language: str
    ends: str | None = None
    calibrated: bool = False
    ffn: str | None = None
    bits: float | None = None

    @property
    def tool(self) -> str:
        """Ours."""
        return OURS

    @property
    def title(self) -> str:
        """The schemes."""
        parts = {"bits": self.bits, "ffn": self.ffn, "ends": self.ends}
        named = [f"{name} {value}" for name, value in parts.items() if value is not None]
        return ", ".join([self.language, *named])

    @property
    def speed_name(self) -> str:
        """The schemes: calibration changes no speed."""
        return f"{OURS} {self.title}"

    def plan(self, checkpoint: Path) -> CompileJob:
        """Plan the compilation of a checkpoint."""
        calibration = OwnTokenizerCalibration(tokenizer=checkpoint / TOKENIZER)
        return plan_job(
            checkpoint,
            quantization=plan_quantization(
                self.language, embedding=self.ends, head=self.ends, ffn=self.ffn, bits=self.bits
            ),
            context=LENGTH,
            calibration=calibration if self.calibrated else None,
        )

    def key(self, bench: Bench) -> str:
        """Name the artifact and what judges it."""
        job = self.plan(bench.checkpoint)
        return result_key(job.key(bench.checkpoint_digest), bench.reference_digest)

    def measure(self, bench: Bench) -> RowFigures:
        """Compile it and judge it."""
        job = self.plan(bench.checkpoint)
        with tempfile.TemporaryDirectory(dir=bench.folder) as name:
            artifact = Path(name) / "artifact"
            compile_job(job, artifact, progress=_Progress().report, warn=_warn)
            judgement = judge(
                bench.sequences,
                read_logits(bench.reference),
                model_logits(artifact, bench.threads),
            )
            return RowFigures(_size(artifact, job), judgement)


def our_rows() -> tuple[OurRow, ...]:
    """Return all schemes as they are by default; 4 bits throughout, and mixtures of 4 and 3.

    Those of 4 bits or fewer come twice, also calibrated: 8 bits leave little to win.
    """
    plain = [OurRow(name) for name in SCHEMES]
    plain += [OurRow("q4a8", "q4a8"), OurRow("q4a8", ffn="q3a8")]
    few = [row for row in plain if _has_few_bits(row.language)]
    calibrated = [replace(row, calibrated=True) for row in few]
    return *plain, *calibrated, OurRow("q4a8", calibrated=True, bits=_MIXED_BITS)


def _has_few_bits(scheme: str) -> bool:
    weights = find_scheme(scheme).weights
    return weights.is_integer and weights.bits <= _FEW_BITS


def model_logits(artifact: Path, threads: int) -> LogitsOf:
    """Return what gives an artifact's logits."""
    return Engine(Model(artifact, threads)).logits


def layer_entries(tensors: Sequence[TensorEntry]) -> list[TensorEntry]:
    """Return the arrays of the layers' matrices, scales included, of a weights index."""
    return [
        entry for entry in tensors if entry.name.startswith(_LAYERS) and _NORM not in entry.name
    ]


def weight_counts(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Count the weights of the layers' matrices, and all weights, of a checkpoint's tensors."""
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    layers = sum(n for name, n in counts.items() if ".layers." in name and len(shapes[name]) == 2)
    return layers, sum(counts.values())


def _size(artifact: Path, job: CompileJob) -> StoredSize:
    layers, weights = weight_counts(expected_tensors(job.config))
    stored = layer_entries(read_weights_index(artifact).tensors)
    manifest = read_manifest(artifact)
    nbytes = sum(entry.size for entry in manifest.files if entry.path.endswith(".bin"))
    plan = job.quantization
    ends = (plan.embedding.name, plan.head.name)
    return StoredSize(
        layer_bits=8 * sum(entry.nbytes for entry in stored) / layers,
        all_bits=8 * nbytes / weights,
        nbytes=nbytes,
        layers=manifest.quantization["language"].replace("+", ", "),
        ends=" / ".join(dict.fromkeys(ends)),
    )


def _warn(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


class _Progress:
    """Tells of work that takes long, once a minute."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def report(self, step: str, done: int, total: int) -> None:
        if time.monotonic() - self._told >= _REPORT_SECONDS:
            self._told = time.monotonic()
            print(f"  {step}: {done} of {total}", file=sys.stderr, flush=True)
