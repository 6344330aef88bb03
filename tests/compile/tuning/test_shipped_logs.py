"""What was tuned for the published models is found by the definitions of today."""

from __future__ import annotations

import pytest
from tvm import tirx

from mvlm.compile.tuning.log import read_log, shipped_logs_folder
from mvlm.compile.tuning.measure_candidate import module_of, workload_of
from mvlm.compile.tuning.task import workload_key
from mvlm.models.cache_layout import CacheLayout
from mvlm.models.ops.kv_cache import append_definition, attention_definition

# Heads, and channels of a head, of the models that the log was made for: 1.7B and 3B.
SHAPES = [(16, 128), (32, 80)]


@pytest.mark.parametrize(("heads", "head_dim"), SHAPES)
def test_operations_on_an_int8_cache(heads: int, head_dim: int) -> None:
    """A changed signature is another workload, and would leave its records unused in silence."""
    layout = CacheLayout(24, heads, head_dim, "int8")
    definitions: list[tirx.PrimFunc] = [
        append_definition("rows", 3 * heads, layout),
        attention_definition("rows", heads, layout),
        attention_definition(1, heads, layout),
    ]
    folder = shipped_logs_folder()
    assert folder is not None
    log = read_log(folder / "host-znver4")
    for definition in definitions:
        assert workload_key(module_of(workload_of(definition))) in log.contents.results
