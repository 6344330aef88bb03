"""The phases: what a module is after each, and how they are dumped."""

from __future__ import annotations

from pathlib import Path

import pytest
import tvm
from tvm import relax, tirx

from mvlm.compile import pipeline
from mvlm.compile.pipeline import dump_into, lower, phases, tensor_functions
from mvlm.models.config.read import read_config
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.ops.signatures import FEW
from mvlm.models.quantization import plan_quantization
from mvlm.runtime.artifact.layout import MOST_FEW_ROWS
from mvlm.schedules.cpu.panels import PANELS
from mvlm.schedules.registry import find_kernels
from tests.artifacts import ArtifactCache
from tests.device import described

NAMES = ["graph", "kernels", "fuse", "schedule", "lower"]
HEAVY = {"linear", "attention", "embedding", "depthwise_convolution", "rowwise"}


@pytest.fixture(scope="module")
def dumped(artifact_cache: ArtifactCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dump of a small model of all parts, 4-bit."""
    folder = tmp_path_factory.mktemp("dump") / "deep" / "er"
    config, target = read_config(artifact_cache.checkpoint("ldpnet")), described("host")
    module, _ = MobileVLM(config, plan_quantization("q4f16_1"), PANELS).export(target)
    lower(module, target, "cpu", {"n": 512}, after=dump_into(folder))
    return folder


def after(dumped: Path, name: str) -> str:
    return (dumped / f"{NAMES.index(name)}-{name}.py").read_text()


def test_dump_has_a_file_per_phase(dumped: Path) -> None:
    assert sorted(path.name for path in dumped.iterdir()) == [
        f"{number}-{name}.py" for number, name in enumerate(NAMES)
    ]
    assert [phase.name for phase in phases(find_kernels("cpu"), {})] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_dumps_are_python(dumped: Path, name: str) -> None:
    text = after(dumped, name)
    compile(text, name, "exec")
    assert "from tvm.script import" in text
    assert "class Module" in text


@pytest.mark.parametrize("name", NAMES)
def test_functions_keep_their_names(dumped: Path, name: str) -> None:
    for function in (
        *("vision_tower", "projector", "embed"),
        *("prefill", "prefill_all", "decode_few", "decode"),
    ):
        assert f"def {function}(" in after(dumped, name)


def test_graph_holds_definitions(dumped: Path) -> None:
    for operation in HEAVY:
        assert f'"mvlm.op": "{operation}"' in after(dumped, "graph")
    assert "R.multiply(" in after(dumped, "graph")
    assert (
        "is_scheduled"
        not in after(dumped, "graph").split("class Module")[1].split("def attention")[0]
    )


def test_operators_are_gone_after_fusing(dumped: Path) -> None:
    assert "R.nn." not in after(dumped, "fuse")
    assert "R.multiply(" not in after(dumped, "fuse")


def test_everything_is_scheduled_and_lowered(dumped: Path) -> None:
    assert "T.parallel(" in after(dumped, "schedule")
    assert "T.vectorized(" in after(dumped, "schedule")
    assert "R.call_tir(" not in after(dumped, "lower")
    assert "R.vm." in after(dumped, "lower") or "vm.builtin" in after(dumped, "lower")


def test_pipeline_schedules_all_functions_and_dumps_nothing_unasked(
    artifact_cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []
    config, target = read_config(artifact_cache.checkpoint("text")), described("host")
    module, _ = MobileVLM(config, plan_quantization("q0f16"), PANELS).export(target)
    lowered = lower(module, target, "cpu", {"n": 512}, entered=seen.append).module
    assert seen == NAMES
    assert not list(tmp_path.iterdir())
    # Lowering adds arithmetic on shapes.
    foreign = "shape_func"
    plain = {
        variable.name_hint
        for variable, function in tensor_functions(lowered)
        if not function.attrs.get("tirx.is_scheduled", False)
    }
    assert {name for name in plain if not name.startswith(foreign)} == set()


def test_extents_are_computed_in_one_order(artifact_cache: ArtifactCache) -> None:
    """TVM's order depends on addresses, and so would the code."""
    config, target = read_config(artifact_cache.checkpoint("text")), described("host")
    orders = []
    for _ in range(6):
        module, _ = MobileVLM(config, plan_quantization("q0f16"), PANELS).export(target)
        lowered = lower(module, target, "cpu", {"n": 512, FEW: MOST_FEW_ROWS}).module
        orders += [
            [int(store.indices[0]) for store in function.body.seq]
            for _, function in tensor_functions(lowered)
            if function.attrs.get("tirx.is_host_func", False)
            and isinstance(function.body, tirx.SeqStmt)
        ]
    assert len(orders) >= 6
    assert all(order == sorted(order) for order in orders)


@pytest.mark.parametrize("operation", ["linear", "attention", "cached_attention"])
def test_every_heavy_operation_has_a_kernel(dumped: Path, operation: str) -> None:
    """A definition that no kernel serves would be computed a multiplication at a time.

    Only kernels have tiles whose rows are unrolled.
    """
    defined, scheduled = (
        [
            part
            for part in after(dumped, phase).split("@T.prim_func")
            if f'"mvlm.op": "{operation}"' in part
        ]
        for phase in ("graph", "schedule")
    )
    assert len(scheduled) == len(defined) > 0
    assert not [part for part in defined if "T.unroll(" in part]
    assert [part for part in scheduled if "T.unroll(" in part] == scheduled


def test_memory_is_planned_for_the_largest_chunk() -> None:
    module = tvm.IRModule()
    module["main"] = relax.Function([], relax.Tuple([]), relax.TupleType([]))
    bounded = pipeline._bound_extents({"n": 64})(module)
    assert bounded["main"].attrs["tir_var_upper_bound"]["n"] == 64
