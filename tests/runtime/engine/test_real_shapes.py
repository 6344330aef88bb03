"""The widths of the smallest MobileLLaMA: what LLVM makes of a kernel depends on its extents."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.models.model_zoo import PUBLISHED_MODELS
from mvlm.models.quantization import CACHE_STORAGES, plan_quantization
from mvlm.models.synthetic.checkpoint import write_synthetic
from mvlm.runtime.kv_cache import Run
from mvlm.runtime.model import FloatArray, Model
from tests.runtime.engine.asking import VOCABULARY

pytestmark = pytest.mark.extended
LENGTH = 150


@pytest.mark.parametrize("storage", CACHE_STORAGES)
def test_rows_have_the_same_bits_in_any_chunks(tmp_path: Path, storage: str) -> None:
    checkpoint, artifact = tmp_path / "checkpoint", tmp_path / "artifact"
    checkpoint.mkdir()
    write_synthetic(PUBLISHED_MODELS["MobileLLaMA-1.4B"], checkpoint, layers=2)
    quantization = plan_quantization("q4a8", rounding="nearest", cache=storage)
    compile_job(plan_job(checkpoint, quantization=quantization), artifact)
    model = Model(artifact)
    ids = [1, *np.random.default_rng(0).integers(3, VOCABULARY, LENGTH - 1).tolist()]
    expected = logits(model, ids, [1] * LENGTH)
    cuts = ([LENGTH], [2] * 75, [3] * 50, [5] * 30, [16] * 9 + [6], [17, 1, 33, 1, 66, 16, 16])
    for counts in cuts:
        assert logits(model, ids, counts).tobytes() == expected.tobytes(), counts


def logits(model: Model, ids: list[int], counts: list[int]) -> FloatArray:
    """The logits of all positions, computed by calls of so many rows."""
    cache, pages = model.new_cache(LENGTH), list(range(-(-LENGTH // 64)))
    parts = []
    for begin, end in itertools.pairwise(itertools.accumulate(counts, initial=0)):
        run, rows = Run(begin, end - begin, pages), ids[begin:end]
        if len(rows) <= 16:
            parts.append(model.decode(rows, cache, [run]))
        else:
            parts.append(model.prefill(model.embed(rows), cache, [run]))
    return np.concatenate(parts)
