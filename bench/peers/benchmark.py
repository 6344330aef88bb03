"""Runs scenarios: every tool in a process of its own, interleaved; records the machine's load.

A round is one measurement of each tool, ours first, then theirs, in the same order each time. One
in which other processes took time is done again, as often as there are rounds; where that does not
help, all rounds count and the scenario is marked.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mvlm.bench.bandwidth import measure_in_child
from mvlm.bench.machine_load import NO_LOAD, Load, LoadMeter
from mvlm.bench.peers.runner import FloatArray, Setup
from mvlm.bench.peers.scenarios import Scenario
from mvlm.bench.peers.tool_process import PeerError, ToolProcess
from mvlm.bench.peers.workloads import TIMEOUT_SECONDS, Measurement

# Positions of a KV cache come in such numbers: tools round them up each in its own way.
_CONTEXT_STEP = 256

StartTool = Callable[[str], ToolProcess]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Tool:
    """A tool that is measured, with the model's files.

    Attributes:
        name: In tables.
        module: The file that runs it.
        files: What it reads.
        has_vision: Whether it can encode images.
    """

    name: str
    module: str
    files: Mapping[str, str]
    has_vision: bool


@dataclass
class ToolResult:
    """The values of one tool in one scenario.

    Attributes:
        values: In the scenario's unit, one a round.
        baseline: The same without the background load, if the workload has one.
        features: The tower's, where they are compared.
        facts: What the tool says of itself.
        failure: Why there are no more values.
    """

    values: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    features: FloatArray | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


@dataclass
class ScenarioResult:
    """The values of all tools in one scenario.

    Attributes:
        scenario: Which.
        threads: On how many.
        tool_results: By the tools' names, in their order.
        order: The names in the order in which they were measured, every round that was done.
        bandwidths: Bytes that the machine reads in a second, some a round.
        load: What others did while the rounds that count were measured.
        repeated: Rounds that others disturbed and that were done again.
    """

    scenario: Scenario
    threads: int
    tool_results: dict[str, ToolResult]
    order: list[str] = field(default_factory=list)
    bandwidths: list[float] = field(default_factory=list)
    load: Load = NO_LOAD
    repeated: int = 0


@dataclass(frozen=True)
class Benchmark:
    """The conditions of all scenarios.

    Attributes:
        setup: How the model is opened; files, threads, context and sight are each scenario's.
        image_tokens: Positions that an image takes.
        rounds: That count.
        cores: The cores that all run on.
        start: Starts a child for a tool's name.
        progress: Called with a scenario's title, and rounds done, and to be done.
    """

    setup: Setup
    image_tokens: int
    rounds: int
    cores: Collection[int]
    start: StartTool = ToolProcess
    progress: Progress = lambda title, done, total: None

    def run(self, scenario: Scenario, tools: Sequence[Tool]) -> ScenarioResult:
        """Measure a scenario; a tool that fails does not keep the others from it."""
        threads = scenario.threads or self.setup.threads
        capable = [c for c in tools if c.has_vision or not scenario.workload.has_vision]
        result = ScenarioResult(scenario, threads, {c.name: ToolResult() for c in capable})
        self.progress(scenario.name, 0, self.rounds)
        with ExitStack() as stack:
            opened = _ScenarioTools(self, scenario, result, stack)
            if not scenario.new_process:
                opened.open(capable)
            self._run_rounds(opened, capable, result)
        return result

    def _run_rounds(
        self, opened: _ScenarioTools, capable: Sequence[Tool], result: ScenarioResult
    ) -> None:
        quiet: list[_Round] = []
        disturbed: list[_Round] = []
        while len(quiet) < self.rounds and len(quiet) + len(disturbed) < 2 * self.rounds:
            done = opened.measure_round(
                [c for c in capable if result.tool_results[c.name].failure is None]
            )
            (quiet if done.load.is_quiet else disturbed).append(done)
            self.progress(result.scenario.name, len(quiet), self.rounds)
            if not done.measured:
                break
        counted = quiet if len(quiet) >= self.rounds else quiet + disturbed
        result.repeated = len(quiet) + len(disturbed) - len(counted)
        for done in counted:
            result.load += done.load
            result.bandwidths += done.bandwidths
            for name, measured in done.measured.items():
                tool_result = result.tool_results[name]
                tool_result.values.append(measured.value)
                if measured.baseline is not None:
                    tool_result.baseline.append(measured.baseline)


@dataclass
class _Round:
    measured: dict[str, Measurement] = field(default_factory=dict)
    bandwidths: list[float] = field(default_factory=list)
    load: Load = NO_LOAD


class _ScenarioTools:
    """The tools of one scenario, their processes, and the meter that knows them."""

    def __init__(
        self, benchmark: Benchmark, scenario: Scenario, result: ScenarioResult, stack: ExitStack
    ) -> None:
        self._benchmark, self._scenario, self._result = benchmark, scenario, result
        self._stack = stack
        self._children: dict[str, ToolProcess] = {}
        self._meter = LoadMeter(
            benchmark.cores, lambda: [child.pid for child in self._children.values()]
        )

    def open(self, tools: Sequence[Tool]) -> None:
        """Open the model in every tool, and let it do the work once."""
        for tool in tools:
            with self._failures(tool):
                child = self._stack.enter_context(self._start(tool))
                self._children[tool.name] = child
                self._scenario.workload.prepare(child)

    def measure_round(self, tools: Sequence[Tool]) -> _Round:
        """Measure every tool once."""
        done = _Round()
        for tool in tools:
            with self._failures(tool):
                done.measured[tool.name] = self._measure(tool, done)
        if self._scenario.bandwidth:
            self._meter.settle()
            done.bandwidths = measure_in_child(self._result.threads, self._benchmark.cores)
        return done

    def _measure(self, tool: Tool, done: _Round) -> Measurement:
        self._result.order.append(tool.name)
        if not self._scenario.new_process:
            return self._metered(self._children[tool.name], done)
        with self._start(tool) as child:
            self._children[tool.name] = child
            try:
                return self._metered(child, done)
            finally:
                del self._children[tool.name]

    def _metered(self, child: ToolProcess, done: _Round) -> Measurement:
        # The wait counts as well: work of milliseconds is less than the kernel's clock tells apart.
        self._meter.restart()
        self._meter.settle()
        measured = self._scenario.workload.measure(child)
        done.load += self._meter.load()
        return measured

    def _start(self, tool: Tool) -> ToolProcess:
        benchmark, workload = self._benchmark, self._scenario.workload
        # The token that is chosen last is not read, but some tools want a place for it.
        positions = workload.positions(benchmark.image_tokens) + 1
        setup = replace(
            benchmark.setup,
            files=dict(tool.files),
            threads=self._result.threads,
            context=-(-positions // _CONTEXT_STEP) * _CONTEXT_STEP,
            has_vision=workload.has_vision,
            sequences=self._scenario.sequences,
        )
        child = benchmark.start(tool.name)
        tool_result = self._result.tool_results[tool.name]
        try:
            arguments = {"module": tool.module, "setup": setup.to_json()}
            tool_result.facts = child.ask("open", TIMEOUT_SECONDS, **arguments)
            if self._scenario.features and tool_result.features is None:
                tool_result.features = _features(child)
        except BaseException:
            child.kill()
            raise
        return child

    @contextmanager
    def _failures(self, tool: Tool) -> Iterator[None]:
        """Note a tool's failure, and go on without it."""
        try:
            yield
        except PeerError as error:
            self._result.tool_results[tool.name].failure = str(error)
            child = self._children.pop(tool.name, None)
            if child is not None:
                child.kill()


def _features(child: ToolProcess) -> FloatArray | None:
    found = child.ask("features", TIMEOUT_SECONDS)
    if found["shape"] is None:
        return None
    data = np.frombuffer(base64.b64decode(found["base64"]), "<f4")
    return data.reshape(found["shape"])
