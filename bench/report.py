"""A measurement's result, and what it takes to judge it: machine, load, bandwidth, versions."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mvlm.bench.bandwidth import METHOD
from mvlm.bench.measure import MeasurementPlan
from mvlm.runtime.artifact import Manifest
from mvlm.runtime.artifact.weights import WeightsIndex, read_weights_index
from mvlm.runtime.completion import Stats
from mvlm.runtime.machine import read_machine
from mvlm.runtime.machine.state import load_average

_SPREADS = ("vision_ms", "prefill_tok_s", "decode_tok_s", "first_token_ms", "peak_rss_bytes")
_PACKAGES = ("mvlm", "apache-tvm-ffi", "numpy")
_DECODER, _EMBEDDING = "decoder.", "decoder.embed_tokens."


@dataclass(frozen=True)
class Spread:
    """A quantity over several runs."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarize at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Report:
    """The speeds of a model on this machine.

    Attributes:
        vision_ms: Encoding one image; 0 for a model of text only.
        prefill_tok_s: Prompt positions read in a second.
        decode_tok_s: Tokens decoded in a second.
        first_token_ms: From a new image and a prompt to the first token.
        peak_rss_bytes: The largest resident memory of the measuring process.
        plan: What was run.
        threads: Threads that the model ran on, and that the bandwidth was measured with.
        weight_bytes_per_token: Weights that one decoded token has to read.
        read_bandwidth_bytes_s: Bytes that this machine reads in a second; the median.
        bandwidth_share: How much of it decoding's reading of weights takes, from 0 to 1; above 1
            where the weights stay in the cache.
        artifact: The artifact's digest, its model's name and its quantization.
        machine: CPU, cores, memory and load.
        versions: Of everything that the speeds depend on.
    """

    vision_ms: Spread
    prefill_tok_s: Spread
    decode_tok_s: Spread
    first_token_ms: Spread
    peak_rss_bytes: Spread
    plan: MeasurementPlan
    threads: int
    weight_bytes_per_token: int
    read_bandwidth_bytes_s: float
    bandwidth_share: float
    artifact: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self) | {"read_bandwidth_method": METHOD}


def make_report(
    folder: Path,
    manifest: Manifest,
    plan: MeasurementPlan,
    threads: int,
    runs: Sequence[Stats],
    bandwidths: Sequence[float],
    machine: dict[str, Any],
) -> Report:
    """Put a report together.

    Args:
        folder: The artifact.
        manifest: What is in it.
        plan: What was run.
        threads: On how many threads.
        runs: The speeds of each run.
        bandwidths: Bytes read in a second, from passes before and after the runs.
        machine: What :func:`machine_facts` said before the artifact was opened.

    Raises:
        ArtifactError: The weights' index is damaged.
    """
    spreads = {name: Spread.of([getattr(run, name) for run in runs]) for name in _SPREADS}
    weight_bytes = weight_bytes_per_token(read_weights_index(folder))
    bandwidth = statistics.median(bandwidths)
    return Report(
        **spreads,
        plan=plan,
        threads=threads,
        weight_bytes_per_token=weight_bytes,
        read_bandwidth_bytes_s=bandwidth,
        bandwidth_share=spreads["decode_tok_s"].median * weight_bytes / bandwidth,
        artifact={
            "digest": manifest.digest,
            "model": manifest.model.get("name"),
            "quantization": dict(manifest.quantization),
        },
        machine=machine | {"load_after": load_average()},
        versions=versions() | {"tvm": manifest.abi.tvm},
    )


def weight_bytes_per_token(index: WeightsIndex) -> int:
    """Count the bytes of weights that decoding one token reads.

    Those are all of the decoder's but the embedding table, of which it reads one row. A table that
    is the output head as well is stored and counted as that.
    """
    total = 0
    for entry in index.tensors:
        if entry.name.startswith(_EMBEDDING):
            total += entry.nbytes // entry.shape[0]
        elif entry.name.startswith(_DECODER):
            total += entry.nbytes
    return total


def machine_facts() -> dict[str, Any]:
    """Describe this machine as far as speeds depend on it, its load included."""
    machine = read_machine()
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": machine.cpu,
        "architecture": machine.architecture,
        "features": sorted(machine.features),
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
        "governor": governor.read_text().strip() if governor.is_file() else None,
        "kernel": platform.release(),
        "load_before": load_average(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what runs a model."""
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in _PACKAGES
    }
