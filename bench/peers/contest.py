"""Runs scenarios: every tool in a process of its own, in turns, the load of the machine beside.

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
from mvlm.bench.peers.child import Child, PeerError
from mvlm.bench.peers.runner import FloatArray, Setup
from mvlm.bench.peers.scenarios import Scenario
from mvlm.bench.peers.works import TIMEOUT_SECONDS, Measured
from mvlm.bench.quiet import NOTHING, Load, LoadMeter

# Positions of a KV cache come in such numbers: tools round them up each in its own way.
_CONTEXT_STEP = 256

StartChild = Callable[[str], Child]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Contender:
    """A tool that takes part, with the model's files.

    Attributes:
        name: In tables.
        module: The file that runs it.
        files: What it reads.
        sees: Whether it can be asked for images.
    """

    name: str
    module: str
    files: Mapping[str, str]
    sees: bool


@dataclass
class Score:
    """What one tool reached in one scenario.

    Attributes:
        values: In the scenario's unit, one a round.
        beside: The same under the conditions that they are held against, if there are any.
        features: The tower's, where they are compared.
        facts: What the tool says of itself.
        failure: Why there are no more values.
    """

    values: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    features: FloatArray | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


@dataclass
class Outcome:
    """What came of one scenario.

    Attributes:
        scenario: Which.
        threads: On how many.
        scores: By the tools' names, in their order.
        order: The names in the order in which they were measured, every round that was done.
        bandwidths: Bytes that the machine reads in a second, some a round.
        load: What others did while the rounds that count were measured.
        repeated: Rounds that others disturbed and that were done again.
    """

    scenario: Scenario
    threads: int
    scores: dict[str, Score]
    order: list[str] = field(default_factory=list)
    bandwidths: list[float] = field(default_factory=list)
    load: Load = NOTHING
    repeated: int = 0


@dataclass(frozen=True)
class Contest:
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
    start: StartChild = Child
    progress: Progress = lambda title, done, total: None

    def run(self, scenario: Scenario, contenders: Sequence[Contender]) -> Outcome:
        """Measure a scenario; a tool that fails does not keep the others from it."""
        threads = scenario.threads or self.setup.threads
        able = [c for c in contenders if c.sees or not scenario.work.sees]
        outcome = Outcome(scenario, threads, {c.name: Score() for c in able})
        self.progress(scenario.name, 0, self.rounds)
        with ExitStack() as stack:
            team = _Team(self, scenario, outcome, stack)
            if not scenario.fresh:
                team.open(able)
            self._run_rounds(team, able, outcome)
        return outcome

    def _run_rounds(self, team: _Team, able: Sequence[Contender], outcome: Outcome) -> None:
        quiet: list[_Round] = []
        disturbed: list[_Round] = []
        while len(quiet) < self.rounds and len(quiet) + len(disturbed) < 2 * self.rounds:
            done = team.play([c for c in able if outcome.scores[c.name].failure is None])
            (quiet if done.load.is_quiet else disturbed).append(done)
            self.progress(outcome.scenario.name, len(quiet), self.rounds)
            if not done.measured:
                break
        counted = quiet if len(quiet) >= self.rounds else quiet + disturbed
        outcome.repeated = len(quiet) + len(disturbed) - len(counted)
        for done in counted:
            outcome.load += done.load
            outcome.bandwidths += done.bandwidths
            for name, measured in done.measured.items():
                score = outcome.scores[name]
                score.values.append(measured.value)
                if measured.beside is not None:
                    score.beside.append(measured.beside)


@dataclass
class _Round:
    measured: dict[str, Measured] = field(default_factory=dict)
    bandwidths: list[float] = field(default_factory=list)
    load: Load = NOTHING


class _Team:
    """The tools of one scenario, their processes, and the meter that knows them."""

    def __init__(
        self, contest: Contest, scenario: Scenario, outcome: Outcome, stack: ExitStack
    ) -> None:
        self._contest, self._scenario, self._outcome = contest, scenario, outcome
        self._stack = stack
        self._children: dict[str, Child] = {}
        self._meter = LoadMeter(
            contest.cores, lambda: [child.pid for child in self._children.values()]
        )

    def open(self, contenders: Sequence[Contender]) -> None:
        """Open the model in every tool, and let it do the work once."""
        for contender in contenders:
            with self._failures(contender):
                child = self._stack.enter_context(self._start(contender))
                self._children[contender.name] = child
                self._scenario.work.prepare(child)

    def play(self, contenders: Sequence[Contender]) -> _Round:
        """Measure every tool once."""
        done = _Round()
        for contender in contenders:
            with self._failures(contender):
                done.measured[contender.name] = self._measure(contender, done)
        if self._scenario.bandwidth:
            self._meter.settle()
            done.bandwidths = measure_in_child(self._outcome.threads, self._contest.cores)
        return done

    def _measure(self, contender: Contender, done: _Round) -> Measured:
        self._outcome.order.append(contender.name)
        if not self._scenario.fresh:
            return self._metered(self._children[contender.name], done)
        with self._start(contender) as child:
            self._children[contender.name] = child
            try:
                return self._metered(child, done)
            finally:
                del self._children[contender.name]

    def _metered(self, child: Child, done: _Round) -> Measured:
        # The wait counts as well: work of milliseconds is less than the kernel's clock tells apart.
        self._meter.restart()
        self._meter.settle()
        measured = self._scenario.work.measure(child)
        done.load += self._meter.load()
        return measured

    def _start(self, contender: Contender) -> Child:
        contest, work = self._contest, self._scenario.work
        # The token that is chosen last is not read, but some tools want a place for it.
        positions = work.positions(contest.image_tokens) + 1
        setup = replace(
            contest.setup,
            files=dict(contender.files),
            threads=self._outcome.threads,
            context=-(-positions // _CONTEXT_STEP) * _CONTEXT_STEP,
            sees=work.sees,
        )
        child = contest.start(contender.name)
        score = self._outcome.scores[contender.name]
        try:
            arguments = {"module": contender.module, "setup": setup.to_json()}
            score.facts = child.ask("open", TIMEOUT_SECONDS, **arguments)
            if self._scenario.features and score.features is None:
                score.features = _features(child)
        except BaseException:
            child.kill()
            raise
        return child

    @contextmanager
    def _failures(self, contender: Contender) -> Iterator[None]:
        """Note a tool's failure, and go on without it."""
        try:
            yield
        except PeerError as error:
            self._outcome.scores[contender.name].failure = str(error)
            child = self._children.pop(contender.name, None)
            if child is not None:
                child.kill()


def _features(child: Child) -> FloatArray | None:
    found = child.ask("features", TIMEOUT_SECONDS)
    if found["shape"] is None:
        return None
    data = np.frombuffer(base64.b64decode(found["base64"]), "<f4")
    return data.reshape(found["shape"])
