"""Steps of several sequences are measured as they are asked for."""

from __future__ import annotations

import pytest

from mvlm.bench.batch import check_batch, measure_batch
from mvlm.bench.measure import MeasurementPlan
from mvlm.runtime.errors import UsageError
from mvlm.runtime.kv_cache import KVCache, Run
from mvlm.runtime.model import Model
from tests.artifacts import ArtifactCache


def test_every_size_decodes_so_many_rows(
    artifact_cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(artifact_cache.artifact("linear"))
    rows: list[int] = []
    decode = Model.decode

    def counted(self: Model, ids: list[int], cache: KVCache, runs: list[Run]) -> object:
        rows.append(len(ids))
        return decode(self, ids, cache, runs)

    monkeypatch.setattr(Model, "decode", counted)
    speeds = measure_batch(model, [1, 3, 16], MeasurementPlan(2, 10, 5))
    assert [each.rows for each in speeds] == [1, 3, 16]
    assert all(each.step_ms > 0 for each in speeds)
    assert [each.tok_s for each in speeds] == pytest.approx(
        [1e3 * each.rows / each.step_ms for each in speeds]
    )
    # Three runs of each size: the first does not count.
    assert all(rows.count(size) >= 3 * 4 for size in (1, 3, 16))


@pytest.mark.parametrize("sizes", [[0], [17], [4, 99]])
def test_sizes_out_of_range_are_refused(sizes: list[int]) -> None:
    with pytest.raises(UsageError, match=r"--batch.*1 to 16"):
        check_batch(sizes, MeasurementPlan(), 2048)


def test_a_plan_over_the_context_is_refused() -> None:
    with pytest.raises(UsageError, match="the model's context"):
        check_batch([1], MeasurementPlan(1, 2000, 100), 2048)
