"""Which candidates of a task are measured next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Protocol

import numpy as np
from tvm.s_tir import meta_schedule as ms

from mvlm.compile.tuning.candidate import Candidate, candidate_of
from mvlm.compile.tuning.guide import Guide, make_context, run_results
from mvlm.compile.tuning.task import Task

# Points that are ranked at once; of the best ones all neighbours are among them.
_RANKED, _BEST = 192, 4
# Spaces of so many points are gone through, larger ones drawn from.
_SMALL = 4096
# The share of a batch that is drawn and not ranked, lest the guide see only what it likes.
_DRAWN = 0.25
_POPULATION, _UNMEASURED = 64, 16


class Search(Protocol):
    """A search of one task's candidates."""

    def propose(self, count: int) -> list[Candidate]:
        """Return candidates that have not been measured; none when there are no more."""

    def learn(self, candidates: Sequence[Candidate], seconds: Sequence[float | None]) -> None:
        """Take note of what was measured; None where a candidate failed."""


class PointSearch:
    """Searches the design space of a kernel, from its default on.

    Args:
        task: The kernel.
        target: TVM's target.
        guide: Ranks candidates; they are drawn if None.
        seed: Of what is drawn.
        known: Points that were measured before, and their times.
    """

    def __init__(
        self,
        task: Task,
        target: Any,
        guide: Guide | None,
        seed: int,
        known: Sequence[tuple[Mapping[str, int], float]] = (),
    ) -> None:
        self._task, self._guide = task, guide
        self._random = np.random.default_rng(seed)
        self._context = make_context(task, target)
        self._seen: dict[tuple[int, ...], float | None] = {}
        self._untold: list[tuple[Candidate, float | None]] = []
        usable = [(point, seconds) for point, seconds in known if task.has(point)]
        if usable:
            self.learn(
                [self._candidate(self._key(point)) for point, _ in usable], [s for _, s in usable]
            )

    @property
    def size(self) -> int:
        """Points of the space."""
        return math.prod(len(knob.values) for knob in self._task.knobs)

    def propose(self, count: int) -> list[Candidate]:
        """Return the most promising points, and some others."""
        count = min(count, self.size - len(self._seen))
        if count <= 0:
            return []
        keys = self._pool(count)
        candidates = [self._candidate(key) for key in keys]
        scores = self._guide.scores(self._context, candidates) if self._guide else None
        if scores is not None:
            order = np.argsort(-scores, kind="stable")
            ranked, others = list(order), list(order)
            drawn = math.ceil(_DRAWN * count)
            ranked = ranked[: count - drawn]
            others = [place for place in others if place not in set(ranked)]
            picked = self._random.choice(others, drawn, replace=False)
            candidates = [candidates[place] for place in [*ranked, *picked]]
        candidates = candidates[:count]
        for candidate in candidates:
            assert candidate.point is not None
            self._seen[self._key(candidate.point)] = None
        return candidates

    def learn(self, candidates: Sequence[Candidate], seconds: Sequence[float | None]) -> None:
        """Take note of what was measured."""
        for candidate, each in zip(candidates, seconds, strict=True):
            assert candidate.point is not None
            self._seen[self._key(candidate.point)] = each
            self._untold.append((candidate, each))
        # A single measurement, the default's, is not worth training the model for.
        if self._guide is not None and len(self._untold) > 1:
            told, times = zip(*self._untold, strict=True)
            self._guide.learn(self._context, told, times)
            self._untold.clear()

    def _pool(self, count: int) -> list[tuple[int, ...]]:
        """Return points that have not been seen: neighbours of the best, and others, drawn."""
        known = sorted((each, key) for key, each in self._seen.items() if each is not None)
        best = [key for _, key in known[:_BEST]] if self._guide else []
        found = {
            neighbour: None
            for key in best
            for neighbour in self._neighbours(key)
            if neighbour not in self._seen
        }
        lengths = [len(knob.values) for knob in self._task.knobs]
        if self.size <= _SMALL:
            every = product(*map(range, lengths))
            others = [key for key in every if key not in self._seen]
            self._random.shuffle(others)
        else:
            drawn = self._random.integers(lengths, size=(2 * max(count, _RANKED), len(lengths)))
            others = [key for key in map(tuple, drawn.tolist()) if key not in self._seen]
        found |= dict.fromkeys(others[: max(count, _RANKED)])
        pool = list(found)
        self._random.shuffle(pool)
        return pool

    def _neighbours(self, key: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [
            (*key[:place], other, *key[place + 1 :])
            for place, knob in enumerate(self._task.knobs)
            for other in range(len(knob.values))
            if other != key[place]
        ]

    def _key(self, point: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(knob.values.index(point[knob.name]) for knob in self._task.knobs)

    def _candidate(self, key: tuple[int, ...]) -> Candidate:
        knobs = self._task.knobs
        point = {knob.name: knob.values[place] for knob, place in zip(knobs, key, strict=True)}
        return candidate_of(self._task.module, knobs, point)


class FunctionSearch:
    """Searches MetaSchedule's own space of a function that no kernel serves, as MetaSchedule does.

    Args:
        task: The function.
        target: TVM's target.
        guide: Has the model of costs; a random one takes its place if None.
        seed: Of what is drawn.
        known: Candidates that were measured before, and their times: the search begins with them.
    """

    def __init__(
        self,
        task: Task,
        target: Any,
        guide: Guide | None,
        seed: int,
        known: Sequence[tuple[Candidate, float]] = (),
    ) -> None:
        self._guide = guide
        self._model = ms.cost_model.RandomModel() if guide is None else guide.of_functions
        self._database = ms.database.MemoryDatabase()
        self._workload = self._database.commit_workload(task.module)
        self._target = target
        self._context = make_context(
            task,
            target,
            space_generator=ms.space_generator.PostOrderApply(
                # Not those of the target's instructions: nothing here multiplies matrices.
                sch_rules=ms.ScheduleRule.create("llvm"),
                postprocs=ms.Postproc.create("llvm"),
                mutator_probs=ms.Mutator.create("llvm"),
            ),
            search_strategy=ms.search_strategy.EvolutionarySearch(
                population_size=_POPULATION, init_min_unmeasured=_UNMEASURED
            ),
            rand_state=1 + seed,
        )
        self._is_open = False
        if known:
            self.learn([candidate for candidate, _ in known], [seconds for _, seconds in known])

    def propose(self, count: int) -> list[Candidate]:
        """Return what MetaSchedule's evolutionary search finds."""
        if not self._is_open:
            self._context.pre_tuning(
                max_trials=1 << 20,
                num_trials_per_iter=count,
                design_spaces=self._context.generate_design_space(),
                database=self._database,
                cost_model=self._model,
            )
            self._is_open = True
        found = self._context.generate_measure_candidates()
        return [] if found is None else [Candidate(each.sch, None) for each in found][:count]

    def learn(self, candidates: Sequence[Candidate], seconds: Sequence[float | None]) -> None:
        """Tell the search, and its database."""
        results = run_results(seconds)
        measured = [ms.MeasureCandidate(each.schedule, []) for each in candidates]
        if self._is_open:
            self._context.notify_runner_results(measured, results)
        for candidate, each in zip(candidates, seconds, strict=True):
            if each is not None:
                self._database.commit_tuning_record(
                    ms.database.TuningRecord(
                        candidate.schedule.trace, self._workload, [each], self._target, []
                    )
                )
        if self._guide is not None:
            self._guide.learn(self._context, candidates, seconds)
