"""The benchmark of fake tools: the order of measurements, which rounds count, and the goals."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mvlm.bench.machine_load import Load
from mvlm.bench.peers import benchmark as benchmark_module
from mvlm.bench.peers import workloads
from mvlm.bench.peers.benchmark import Benchmark, ScenarioResult, Tool
from mvlm.bench.peers.catalogue import OURS, PEERS
from mvlm.bench.peers.comparison import Comparison
from mvlm.bench.peers.goal_check import check_goals
from mvlm.bench.peers.runner import Setup
from mvlm.bench.peers.scenarios import (
    GOALS,
    OURS_16,
    SCENARIOS,
    Scenario,
    find_scenarios,
)
from mvlm.bench.peers.tool_process import ToolProcess
from mvlm.bench.peers.workloads import ContinuedDecode, Decode, DecodeUnderLoad, Memory, Prefill
from mvlm.runtime.errors import UsageError

QUIET, NOISY = Load(1.0, 0.01, 0.0), Load(1.0, 0.7, 0.0)
SETUP = Setup({}, 2, 0, 32_000, 1, None, False)


class Stage:
    """Fake tools with a log of what they were asked, and loads that a test chooses."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = folder / "log"
        self.options: dict[str, list[str]] = {}
        self.loads: list[Load] = []
        monkeypatch.setattr(benchmark_module, "LoadMeter", lambda *_: self)
        monkeypatch.setattr(benchmark_module, "measure_in_child", lambda *_: [1e9, 3e9])

    def settle(self) -> None: ...

    def restart(self) -> None: ...

    def load(self) -> Load:
        return self.loads.pop(0) if self.loads else QUIET

    def start(self, name: str) -> ToolProcess:
        options = [f"name={name}", f"log={self.log}", *self.options.get(name, ())]
        return ToolProcess(name, (sys.executable, "-m", "tests.bench.fake_peer", *options))

    def run(
        self, scenario: Scenario, names: Sequence[str] = ("a", "b"), rounds: int = 2
    ) -> ScenarioResult:
        tools = [Tool(name, "no.module", {"model": name}, has_vision=True) for name in names]
        return Benchmark(SETUP, 144, rounds, {0}, self.start).run(scenario, tools)

    def asked(self, *kinds: str) -> list[tuple[str, str]]:
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(name, do) for name, do, _ in lines if not kinds or do in kinds]

    def pids(self) -> set[str]:
        return {line.split()[2] for line in self.log.read_text().splitlines()}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_benchmark_interleaves_tools(stage: Stage) -> None:
    result = stage.run(Scenario("s", "", Prefill(64)), rounds=3)
    assert result.order == ["a", "b"] * 3
    # One reading before the rounds does not count, and each tool is opened once.
    assert stage.asked("prefill") == [("a", "prefill"), ("b", "prefill")] * 4
    assert stage.asked("open") == [("a", "open"), ("b", "open")]
    assert len(stage.pids()) == 2
    assert result.tool_results["a"].values == [6400.0] * 3


def test_decode_prefills_each_round(stage: Stage) -> None:
    result = stage.run(Scenario("s", "", Decode(200, 128), bandwidth=True), ["a"])
    assert stage.asked("prefill", "decode") == [("a", "prefill"), ("a", "decode")] * 3
    assert result.tool_results["a"].values == [12800.0] * 2
    assert result.bandwidths == [1e9, 3e9] * 2


def test_continued_decode_prefills_once(stage: Stage) -> None:
    stage.run(Scenario("s", "", ContinuedDecode(100, 12)), ["a"])
    assert [do for _, do in stage.asked("prefill", "decode")] == ["prefill", *["decode"] * 3]


def test_memory_workload_takes_new_processes(stage: Stage) -> None:
    stage.options = {"b": ["bytes=3e6"]}
    result = stage.run(Scenario("s", "", Memory(5, 3, has_vision=False), "bytes", new_process=True))
    assert result.order == ["a", "b"] * 2 and len(stage.pids()) == 4
    assert result.tool_results["b"].values == [3e6] * 2
    assert stage.asked()[:4] == [("a", do) for do in ("open", "prefill", "decode", "peak")]


def test_a_scenario_may_have_its_own_threads(stage: Stage) -> None:
    result = stage.run(Scenario("s", "", Prefill(256), threads=1), ["a"])
    setup = result.tool_results["a"].facts["setup"]
    assert (result.threads, setup["threads"], setup["context"]) == (1, 1, 512)
    assert setup["files"] == {"model": "a"} and not setup["has_vision"]


def test_decode_under_load_measures_the_baseline_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workloads, "_SETTLING_SECONDS", 0.0)
    result = stage.run(Scenario("s", "", DecodeUnderLoad(10, 4)), ["a"], rounds=1)
    assert result.tool_results["a"].values == result.tool_results["a"].baseline == [400.0]


def test_disturbed_round_is_repeated(stage: Stage) -> None:
    stage.loads = [QUIET, QUIET, NOISY, NOISY]
    result = stage.run(Scenario("s", "", Prefill(64)), rounds=2)
    assert len(result.tool_results["a"].values) == 2 and result.order == ["a", "b"] * 3
    assert result.repeated == 1 and result.load.is_quiet


def test_disturbed_rounds_count_when_repeats_do_not_help(stage: Stage) -> None:
    stage.loads = [NOISY] * 100
    result = stage.run(Scenario("s", "", Prefill(64)), ["a"], rounds=2)
    assert len(result.tool_results["a"].values) == 4
    assert result.repeated == 0 and not result.load.is_quiet


@pytest.mark.parametrize("fault", ["crash", "rubbish", "refuse"])
@pytest.mark.parametrize("request_", ["open", "decode"])
def test_failing_tool_does_not_stop_the_others(stage: Stage, fault: str, request_: str) -> None:
    stage.options = {"b": [f"{fault}={request_}"]}
    result = stage.run(Scenario("s", "", Decode(20, 4)), ["a", "b", "c"])
    assert [len(result.tool_results[name].values) for name in "abc"] == [2, 0, 2]
    failure = result.tool_results["b"].failure
    assert failure is not None and request_ in failure and "b " in failure
    assert not result.tool_results["a"].failure and not result.tool_results["c"].failure


def test_hanging_tool_is_killed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "TIMEOUT_SECONDS", 2.0)
    stage.options = {"b": ["hang=prefill"]}
    result = stage.run(Scenario("s", "", Prefill(20)))
    assert "b hangs" in (result.tool_results["b"].failure or "")
    assert len(result.tool_results["a"].values) == 2


def test_benchmark_ends_when_all_tools_fail(stage: Stage) -> None:
    stage.options = {"a": ["crash=open"]}
    result = stage.run(Scenario("s", "", Prefill(20)), ["a"])
    assert result.tool_results["a"].values == [] and result.tool_results["a"].failure


def test_tool_without_vision_is_left_out(stage: Stage) -> None:
    blind = Tool("blind", "no.module", {}, has_vision=False)
    benchmark = Benchmark(SETUP, 144, 1, {0}, stage.start)
    assert benchmark.run(SCENARIOS["first-token"], [blind]).tool_results == {}


def test_unsupported_scenarios_are_left_out_or_refused() -> None:
    every = find_scenarios((), has_vision=True, context=2048)
    assert [scenario.name for scenario in every] == list(SCENARIOS)
    blind = find_scenarios((), has_vision=False, context=1100)
    assert {"vision", "memory-image", "decode-at-1900"}.isdisjoint(s.name for s in blind)
    assert "prefill-1024" in {scenario.name for scenario in blind}
    with pytest.raises(UsageError, match="--scenario vision: found a model of text only"):
        find_scenarios(("vision",), has_vision=False, context=2048)
    with pytest.raises(UsageError, match="a model of 1000 positions"):
        find_scenarios(("prefill-1024",), has_vision=True, context=1000)


def test_goals_name_measured_scenarios() -> None:
    assert GOALS
    for goal in GOALS:
        assert goal.ours in SCENARIOS[goal.scenario].ours
        assert goal.against is None or goal.against in PEERS or goal.against in SCENARIOS


# --- goals --------------------------------------------------------------------------------------


def scored(name: str, load: Load = QUIET, **values: Sequence[float]) -> ScenarioResult:
    """A result of a scenario; of `ours`, `f16`, `llama` and `torch`."""
    names = {"ours": OURS, "f16": OURS_16, "llama": "llama.cpp", "torch": "torch"}
    tool_results = {
        names[key]: benchmark_module.ToolResult(list(found)) for key, found in values.items()
    }
    return ScenarioResult(SCENARIOS[name], 2, tool_results, load=load)


def reached(*results: ScenarioResult) -> dict[tuple[str, str, str, str | None], float | None]:
    judged = check_goals({result.scenario.name: result for result in results})
    return {
        (each.goal.scenario, each.goal.measure, each.goal.ours, each.goal.against): each.reached
        for each in judged
    }


def test_goal_ratios_are_of_medians() -> None:
    faster = reached(scored("prefill-256", ours=[1, 30, 1000], llama=[10, 10, 99]))
    assert faster == {("prefill-256", "faster", OURS, "llama.cpp"): 3.0}


def test_goal_ratios_of_times_and_bytes() -> None:
    found = reached(
        scored("vision", ours=[100], f16=[200], llama=[300], torch=[250]),
        scored("memory-text", ours=[6e8], llama=[1e9]),
    )
    assert found["vision", "faster", OURS, "llama.cpp"] == 3.0
    assert found["vision", "faster", OURS_16, "torch"] == 1.25
    assert found["memory-text", "memory", OURS, "llama.cpp"] == pytest.approx(0.6)


def test_goal_of_an_unmeasured_tool_is_open() -> None:
    judged = check_goals({"prefill-256": scored("prefill-256", ours=[1], torch=[1])})
    assert [(each.reached, each.is_met) for each in judged] == [(None, None)]


def test_goal_bounds_at_least_and_at_most() -> None:
    met = {
        each.goal.scenario: each.is_met
        for each in check_goals(
            {
                "memory-text": scored("memory-text", ours=[0.65], llama=[1]),
                "prefill-256": scored("prefill-256", ours=[2.49], llama=[1]),
            }
        )
    }
    assert met == {"memory-text": True, "prefill-256": False}


def test_goal_shares_and_speed_under_load() -> None:
    decode = scored("decode", ours=[40])
    decode.tool_results[OURS].facts["weight_bytes_per_token"] = 5e8
    decode.bandwidths = [20e9, 25e9, 99e9]
    busy = scored("decode-under-load", ours=[20])
    busy.tool_results[OURS].baseline = [40]
    found = reached(
        decode, busy, scored("decode-at-100", ours=[40]), scored("decode-at-1900", ours=[30])
    )
    assert found["decode", "bandwidth", OURS, None] == pytest.approx(0.8)
    assert found["decode-under-load", "under_load", OURS, None] == 0.5
    assert found["decode-at-1900", "kept", OURS, "decode-at-100"] == 0.75


def test_goal_cosine_of_features_to_float32() -> None:
    import numpy as np

    vision = scored("vision", ours=[1], torch=[1])
    vision.tool_results["torch"].features = np.array([[1.0, 0.0]], np.float32)
    vision.tool_results[OURS].features = np.array([[1.0, 1.0]], np.float32)
    found = reached(vision)["vision", "features", OURS, None]
    assert found == pytest.approx(2**-0.5)


def comparison(*results: ScenarioResult) -> Comparison:
    machine = {"cpu": "A CPU", "cores": 2, "load_before": [0.1], "load_after": [0.2]}
    for result in results:
        for tool_result in result.tool_results.values():
            tool_result.facts.setdefault("versions", {"fake": "1"})
    return Comparison("model", 2, 5, ("llama.cpp",), results, machine, "mvlm bench model")


def test_goals_are_open_on_a_noisy_machine() -> None:
    noisy = comparison(scored("prefill-256", NOISY, ours=[30], llama=[10]))
    assert [line.partition(":")[0] for line in noisy.disturbances] == ["prefill-256"]
    document = noisy.to_json()
    assert document["quiet"]["is_quiet"] is False
    assert [(goal["reached"], goal["is_met"]) for goal in document["goals"]] == [(3.0, None)]


def test_comparison_json_has_five_speeds_and_ratios() -> None:
    document = comparison(scored("decode", ours=[30, 40, 50], llama=[20])).to_json()
    assert document["decode_tok_s"] == {"median": 40, "min": 30, "max": 50}
    assert document["vision_ms"] is None
    assert document["peers"]["llama.cpp"]["ratio"]["decode_tok_s"] == 2.0
    assert document["peers"]["llama.cpp"]["decode_tok_s"]["median"] == 20
