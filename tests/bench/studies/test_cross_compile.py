"""What compiling for a device costs, as a table; and the mix of a small model's kernels."""

from __future__ import annotations

import pytest

from mvlm.bench.studies.cross_compile import CompileCost, InstructionMix, measure_mixes, table
from mvlm.compile.job import plan_job
from tests.artifacts import ArtifactCache


def test_cross_compile_table() -> None:
    mixes = [
        InstructionMix("linear", {"decode": 24, "prefill": 24}, {"products": 32, "loads": 12}),
        InstructionMix("looked_up", {"embed": 1}, {"loads": 1}),
    ]
    text = table("MobileVLM-1.7B", CompileCost(60.4, 1.2e9, 0.8e9, 3.21e6), mixes)
    assert "took 60 s and 1.20 GB of peak" in text and "0.80 GB, of which 3.2 MB are code" in text
    assert "| `linear` | decode 24x, prefill 24x | 32 | 0 | 12 | 0 | 0 | 0 |" in text
    assert "looked_up" not in text


@pytest.mark.extended
def test_cross_compile_counts_the_kernels_of_a_model(
    artifact_cache: ArtifactCache, empty_cache: object
) -> None:
    """This machine's own code: every kernel that is called is found in the assembly."""
    mixes = measure_mixes(plan_job(artifact_cache.checkpoint("text"), quantization="q4a8"))
    decoding = {mix.kernel: mix for mix in mixes if "decode" in mix.calls}
    linear = [mix for name, mix in decoding.items() if name.startswith("linear")]
    assert len(linear) >= 4
    assert all(sum(mix.counts.values()) > 50 for mix in linear)
