"""Search strategies: which candidates of a task are measured next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Protocol

import numpy as np
from tvm.s_tir import meta_schedule as ms

from mvlm.compile.tuning.cost_model import CostModel, make_tune_context, runner_results
from mvlm.compile.tuning.measure_candidate import MeasureCandidate, make_candidate
from mvlm.compile.tuning.task import Task

# Configs that are ranked at once, and the best ones whose neighbours are all among them.
_RANKED, _BEST = 192, 4
# Spaces up to this size are enumerated, larger ones are sampled.
_SMALL = 4096
# The share of a batch that is drawn at random, as epsilon-greedy search does.
_RANDOM_SHARE = 0.25
_POPULATION, _UNMEASURED = 64, 16


class SearchStrategy(Protocol):
    """Searches one task's space, as a `tvm.s_tir.meta_schedule.SearchStrategy`."""

    def generate_measure_candidates(self, count: int) -> list[MeasureCandidate]:
        """Return at most `count` unmeasured candidates; none when the space is exhausted."""

    def notify_runner_results(
        self, candidates: Sequence[MeasureCandidate], seconds: Sequence[float | None]
    ) -> None:
        """Learn the candidates' times; None where a candidate failed."""


class KnobSearch:
    """Searches the knobs of a kernel: neighbours of the best configs, and random ones.

    Args:
        task: The kernel task.
        target: TVM's target.
        cost_model: Ranks candidates; None draws them at random.
        seed: The random generator's seed.
        known: Configs that were measured before, and their times.
    """

    def __init__(
        self,
        task: Task,
        target: Any,
        cost_model: CostModel | None,
        seed: int,
        known: Sequence[tuple[Mapping[str, int], float]] = (),
    ) -> None:
        self._task, self._cost_model = task, cost_model
        self._random = np.random.default_rng(seed)
        self._context = make_tune_context(task, target)
        self._seen: dict[tuple[int, ...], float | None] = {}
        self._new_results: list[tuple[MeasureCandidate, float | None]] = []
        usable = [(config, seconds) for config, seconds in known if task.supports(config)]
        if usable:
            self.notify_runner_results(
                [self._candidate(self._key(config)) for config, _ in usable], [s for _, s in usable]
            )

    @property
    def size(self) -> int:
        """The number of configs."""
        return math.prod(len(knob.values) for knob in self._task.knobs)

    def generate_measure_candidates(self, count: int) -> list[MeasureCandidate]:
        """Return the configs that the cost model ranks highest, and some random ones."""
        count = min(count, self.size - len(self._seen))
        if count <= 0:
            return []
        keys = self._pool(count)
        candidates = [self._candidate(key) for key in keys]
        scores = self._cost_model.predict(self._context, candidates) if self._cost_model else None
        if scores is not None:
            order = np.argsort(-scores, kind="stable")
            ranked, others = list(order), list(order)
            drawn = math.ceil(_RANDOM_SHARE * count)
            ranked = ranked[: count - drawn]
            others = [index for index in others if index not in set(ranked)]
            picked = self._random.choice(others, drawn, replace=False)
            candidates = [candidates[index] for index in [*ranked, *picked]]
        candidates = candidates[:count]
        for candidate in candidates:
            assert candidate.config is not None
            self._seen[self._key(candidate.config)] = None
        return candidates

    def notify_runner_results(
        self, candidates: Sequence[MeasureCandidate], seconds: Sequence[float | None]
    ) -> None:
        """Learn the candidates' times."""
        for candidate, each in zip(candidates, seconds, strict=True):
            assert candidate.config is not None
            self._seen[self._key(candidate.config)] = each
            self._new_results.append((candidate, each))
        # A single measurement, the default's, is not worth training the model for.
        if self._cost_model is not None and len(self._new_results) > 1:
            new_candidates, times = zip(*self._new_results, strict=True)
            self._cost_model.update(self._context, new_candidates, times)
            self._new_results.clear()

    def _pool(self, count: int) -> list[tuple[int, ...]]:
        """Return unmeasured configs: neighbours of the best ones, and random ones."""
        known = sorted((each, key) for key, each in self._seen.items() if each is not None)
        best = [key for _, key in known[:_BEST]] if self._cost_model else []
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
            (*key[:index], other, *key[index + 1 :])
            for index, knob in enumerate(self._task.knobs)
            for other in range(len(knob.values))
            if other != key[index]
        ]

    def _key(self, config: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(knob.values.index(config[knob.name]) for knob in self._task.knobs)

    def _candidate(self, key: tuple[int, ...]) -> MeasureCandidate:
        knobs = self._task.knobs
        config = {knob.name: knob.values[index] for knob, index in zip(knobs, key, strict=True)}
        return make_candidate(self._task.module, knobs, config)


class EvolutionarySearch:
    """Searches an extracted task with MetaSchedule's own rules and evolutionary search.

    Args:
        task: The extracted task.
        target: TVM's target.
        cost_model: Has MetaSchedule's cost model; None stands for its random one.
        seed: The random generator's seed.
        known: Candidates that were measured before, and their times; the search starts from them.
    """

    def __init__(
        self,
        task: Task,
        target: Any,
        cost_model: CostModel | None,
        seed: int,
        known: Sequence[tuple[MeasureCandidate, float]] = (),
    ) -> None:
        self._cost_model = cost_model
        self._model = ms.cost_model.RandomModel() if cost_model is None else cost_model.extracted
        self._database = ms.database.MemoryDatabase()
        self._workload = self._database.commit_workload(task.module)
        self._target = target
        self._context = make_tune_context(
            task,
            target,
            space_generator=ms.space_generator.PostOrderApply(
                # Without tensor-core rules: no extracted task multiplies matrices.
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
            self.notify_runner_results(
                [candidate for candidate, _ in known], [seconds for _, seconds in known]
            )

    def generate_measure_candidates(self, count: int) -> list[MeasureCandidate]:
        """Return candidates of MetaSchedule's evolutionary search."""
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
        return [] if found is None else [MeasureCandidate(each.sch, None) for each in found][:count]

    def notify_runner_results(
        self, candidates: Sequence[MeasureCandidate], seconds: Sequence[float | None]
    ) -> None:
        """Pass the times to the search, its database and the cost model."""
        results = runner_results(seconds)
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
        if self._cost_model is not None:
            self._cost_model.update(self._context, candidates, seconds)
