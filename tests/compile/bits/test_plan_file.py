"""Plans of bits as files: strict to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvlm.compile.bits.plan_file import PlanError, read_plan, write_plan
from mvlm.models.quantization import BitPlan, LayerPlan
from mvlm.runtime.errors import UsageError

PLAN = BitPlan((LayerPlan("q3a8", "q4a8", "q8a8"), LayerPlan("q4a8", "q3a8", "q3a8")))
LAYER = {"attention": "q4a8", "gate_up": "q4a8", "down": "q4a8"}


def test_plans_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan.json", PLAN)
    assert read_plan(tmp_path / "plan.json") == PLAN
    assert len((tmp_path / "plan.json").read_text().splitlines()) == 4
    assert json.loads((tmp_path / "plan.json").read_bytes()) == PLAN.to_json()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", r"plan\.json is not valid JSON"),
        ("[" * 100_000, r"plan\.json is not valid JSON"),
        ("[]", r"plan\.json is wrong: expected an object with layers, found \[\]"),
        ("{}", r"plan\.json is wrong: expected an object with layers"),
        (
            {"layers": [LAYER], "bits": 4},
            r"is wrong: expected an object with layers, found 'layers'",
        ),
        ({"layers": []}, r"`layers` is wrong: expected a list with an object for each layer"),
        ({"layers": LAYER}, r"`layers` is wrong: expected a list"),
        ({"layers": ["q4a8"]}, r"layers\[0\] is wrong: expected an object with attention, gate_up"),
        ({"layers": [LAYER, {"down": "q4a8"}]}, r"layers\[1\] is wrong.*found 'down'"),
        ({"layers": [LAYER | {"up": "q4a8"}]}, r"layers\[0\] is wrong"),
        (
            {"layers": [LAYER | {"down": "q4f16_1"}]},
            r"layers\[0\]: the scheme of down .*expected q3a8 or q4a8 or q8a8, found 'q4f16_1'",
        ),
        ({"layers": [LAYER | {"down": 4}]}, r"layers\[0\]: the scheme of down .*found 4"),
        ({"layers": [LAYER | {"down": ["q4a8"]}]}, r"layers\[0\]: the scheme of down"),
    ],
)
def test_files_that_are_no_plans(tmp_path: Path, document: object, message: str) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match=message):
        read_plan(tmp_path / "plan.json")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot read .*No such file"):
        read_plan(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(PlanError, match="is too large"):
        read_plan(tmp_path / "plan.json")
    with pytest.raises(UsageError, match=r"cannot write .*No such file"):
        write_plan(tmp_path / "nowhere" / "plan.json", PLAN)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_bytes(data)
    with pytest.raises(PlanError):
        read_plan(path)
