"""Drafts: which tokens are guessed, how many are verified, and that answers do not depend on it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.runtime.artifact.layout import MOST_FEW_ROWS
from mvlm.runtime.engine import Engine, EngineSettings, Request
from mvlm.runtime.engine.speculation import Draft, Drafter, DraftPlanner, NgramDrafter
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID
from tests.runtime.engine.asking import alone, greedy, prompt

# --- guesses ------------------------------------------------------------------------------------


def search(ids: Sequence[int], most: int) -> Draft | None:
    """What followed the longest repeated end the last time, by looking at every place."""
    for n in (4, 3, 2):
        ends = [end for end in range(n, len(ids)) if ids[end - n : end] == ids[len(ids) - n :]]
        if not ends:
            continue
        guessed = list(ids)
        for at in range(ends[-1], ends[-1] + most):
            guessed.append(guessed[at])
        found = guessed[len(ids) :]
        if IMAGE_TOKEN_ID in found:
            found = found[: found.index(IMAGE_TOKEN_ID)]
        return Draft(tuple(found), n) if found else None
    return None


# Few tokens, so that they repeat themselves.
some_ids = st.lists(st.sampled_from([1, 2, 3, IMAGE_TOKEN_ID]), max_size=24)


@settings(max_examples=500, deadline=None)
@given(parts=st.lists(some_ids, min_size=1, max_size=5), most=st.integers(1, 9))
def test_guesses_are_those_of_a_search(parts: list[list[int]], most: int) -> None:
    """However many tokens have come since the drafter was asked before."""
    drafter, ids = NgramDrafter(), list[int]()
    for part in parts:
        ids += part
        assert drafter.propose(ids, most) == search(ids, most)


@pytest.mark.parametrize(
    ("ids", "most", "draft"),
    [
        ([], 3, None),
        ([5], 3, None),
        ([5, 6, 7, 8], 3, None),
        ([5, 6, 7, 8, 5, 6], 3, Draft((7, 8, 5), 2)),
        ([5, 6, 7, 5, 6, 8, 5, 6], 1, Draft((8,), 2)),
        # The longest end counts, although a shorter one came later.
        ([4, 5, 6, 7, 5, 6, 8, 4, 5, 6], 2, Draft((7, 5), 3)),
        ([9, 4, 5, 6, 7, 9, 4, 5, 6], 2, Draft((7, 9), 4)),
        # What repeats itself goes on.
        ([5, 6, 5, 6], 5, Draft((5, 6, 5, 6, 5), 2)),
        ([5, 5, 5], 4, Draft((5, 5, 5, 5), 2)),
        ([5, 6, IMAGE_TOKEN_ID, 5, 6], 3, None),
        ([5, 6, 7, IMAGE_TOKEN_ID, 5, 6], 3, Draft((7,), 2)),
    ],
)
def test_guesses(ids: list[int], most: int, draft: Draft | None) -> None:
    drafter: Drafter = NgramDrafter()
    assert drafter.propose(ids, most) == draft == search(ids, most)


# --- how many are worth a step ------------------------------------------------------------------


def planner(costs: dict[int, float], right: int = 0, wrong: int = 0) -> DraftPlanner:
    """One that has seen some steps, and guesses of kind 4."""
    found = DraftPlanner("auto")
    for rows, seconds in costs.items():
        found.measured(rows, seconds)
    found.learn(4, right, 0)
    found.learn(4, 0, wrong)
    return found


LONG = Draft((5, 6, 7, 8, 9, 10, 11), 4)
FLAT = dict.fromkeys(range(1, 17), 1.0)
# Each row costs as much as a token is worth.
STEEP = {rows: float(rows) for rows in range(1, 17)}


def test_drafts_are_verified_where_they_cost_nothing() -> None:
    assert planner(FLAT, right=50).choose([LONG]) == [7]
    # One is too many of three sequences' rows: the least likely one.
    assert planner(FLAT, right=50).choose([LONG, None, LONG]) == [7, 0, 6]
    assert planner(FLAT, right=50).choose([Draft((5,), 4)]) == [1]


@pytest.mark.parametrize("right", [0, 5, 100])
@pytest.mark.parametrize("sequences", [1, 4, 15])
def test_none_is_verified_where_it_does_not_pay(right: int, sequences: int) -> None:
    """Not even guesses that are always right."""
    assert planner(STEEP, right=right).choose([LONG] * sequences) == [0] * sequences


def test_none_is_verified_that_is_mostly_wrong() -> None:
    dear = {1: 1.0, 2: 1.2, 3: 1.4, 4: 1.6, 5: 1.8, 6: 2.0, 7: 2.2, 8: 2.4}
    assert planner(dear, wrong=50).choose([LONG]) == [0]
    assert planner(dear, right=50).choose([LONG]) == [7]
    # Half of the time right: the first ones alone pay.
    assert 0 < planner(dear).choose([LONG])[0] < 4


def test_a_step_that_costs_more_is_not_taken_for_one_that_does_not() -> None:
    """Rows are cheap up to four, as in some kernels: so many are taken."""
    costs = {rows: 1.0 if rows <= 4 else 3.0 for rows in range(1, 17)}
    assert planner(costs, right=50).choose([LONG]) == [3]


def test_rates_are_learnt_by_kind() -> None:
    found = planner(FLAT, wrong=200)
    found.learn(2, 200, 0)
    counts = found.choose([LONG, Draft((5, 6, 7), 2)])
    assert counts[1] == 3 and counts[0] <= 1


def test_costs_follow_what_is_measured_and_forget_interruptions() -> None:
    found = planner(FLAT, right=50)
    found.measured(8, 1000.0)
    assert found.choose([LONG]) == [6]
    for _ in range(20):
        found.measured(8, 1.0)
    assert found.choose([LONG]) == [7]
    for _ in range(100):
        for rows in range(2, 17):
            found.measured(rows, float(rows))
    assert found.choose([LONG]) == [0]
    for _ in range(100):
        for rows in range(2, 17):
            found.measured(rows, 1.0)
    assert found.choose([LONG]) == [7]


@pytest.mark.parametrize("mode", ["ngram", "auto"])
@pytest.mark.parametrize("sequences", [1, 2, 3, 8, 15, 16])
def test_a_step_has_no_more_rows_than_the_functions_take(mode: str, sequences: int) -> None:
    found = DraftPlanner(mode)  # type: ignore[arg-type]
    for rows in FLAT:
        found.measured(rows, 1.0)
    found.learn(4, 100, 0)
    counts = found.choose([LONG] * sequences)
    assert sum(counts) == min(7 * sequences, MOST_FEW_ROWS - sequences)
    assert all(0 <= count <= 7 for count in counts)


def test_nothing_is_known_of_steps_at_first() -> None:
    """Rows are taken to cost a seventh of a step then, and half of the guesses to be right."""
    assert 0 < DraftPlanner("auto").choose([LONG])[0] < 7


@pytest.mark.parametrize(("mode", "most"), [("off", 0), ("ngram", 3), ("auto", 7)])
def test_drafts_of_a_mode(mode: str, most: int) -> None:
    found = DraftPlanner(mode)  # type: ignore[arg-type]
    assert found.most == most
    assert found.choose([None, None]) == [0, 0]


@pytest.mark.parametrize(
    ("mode", "seconds", "looks"),
    [("auto", 1e-2, 12), ("auto", 1e-4, 3), ("ngram", 1e-4, 12), ("off", 1e-2, 0)],
)
def test_drafts_are_looked_for_seldom_where_steps_are_short(
    mode: str, seconds: float, looks: int
) -> None:
    found = DraftPlanner(mode)  # type: ignore[arg-type]
    found.measured(1, seconds)
    looked = 0
    for _ in range(12):
        found.begin_step()
        looked += found.is_looking
    assert looked == looks


# --- in the engine ------------------------------------------------------------------------------


class Oracle(NgramDrafter):
    """Knows an answer, and guesses wrongly from some token on."""

    answer: tuple[int, ...] = ()
    prompt_length = 0
    right = 0

    def propose(self, ids: Sequence[int], most: int) -> Draft | None:
        given = len(ids) - self.prompt_length
        tokens = list(self.answer[given : given + most])
        for at in range(self.right, len(tokens)):
            tokens[at] = (tokens[at] + 1) % 384
        return Draft(tuple(tokens), 4) if tokens else None


@pytest.mark.parametrize("right", [0, 1, 2, 3])
@pytest.mark.parametrize("temperature", [0, 0.9])
def test_what_is_right_is_taken_over(
    model: Model, monkeypatch: pytest.MonkeyPatch, right: int, temperature: float
) -> None:
    """A step gives one token more than there were right guesses, and the last step no more."""
    params = SamplingParams(temperature=temperature, seed=3, max_tokens=25, repetition_penalty=1.1)
    request = Request(prompt(20), params=params)
    expected = alone(model, request)
    monkeypatch.setattr(Oracle, "answer", tuple(expected))
    monkeypatch.setattr(Oracle, "prompt_length", 20)
    monkeypatch.setattr(Oracle, "right", right)
    monkeypatch.setattr("mvlm.runtime.engine.scheduler.NgramDrafter", Oracle)
    engine = Engine(model, EngineSettings(speculate="ngram"))
    (answer,) = engine.submit(request)
    assert list(engine.tokens(answer)) == expected
    stats = answer.stats
    # The first token comes with the prompt, without drafts.
    assert stats.steps == 1 + -(-24 // (1 + right))
    assert stats.accepted == 25 - stats.steps
    assert stats.accepted <= stats.drafted <= 3 * (stats.steps - 1)


@pytest.mark.parametrize("wrong", [-200, -1, 384, 2**40])
def test_what_a_drafter_guesses_may_be_no_token(
    model: Model, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    """Neither its own answer nor one beside it fails."""

    class Erring(NgramDrafter):
        def propose(self, ids: Sequence[int], most: int) -> Draft | None:
            return Draft((*(5, wrong)[len(ids) % 2 :], 7), 4)

    monkeypatch.setattr("mvlm.runtime.engine.scheduler.NgramDrafter", Erring)
    engine = Engine(model, EngineSettings(speculate="ngram", capacity=4 * model.settings.context))
    requests = [Request(prompt(20, seed), params=greedy(10)) for seed in range(2)]
    answers = [engine.submit(request)[0] for request in requests]
    engine.read_ahead(Request(prompt(10, 5)))
    while not engine.is_idle:
        engine.step()
    for request, answer in zip(requests, answers, strict=True):
        assert answer.error is None and answer.tokens == alone(model, request)
    assert answers[0].stats.drafted > 0


def test_an_answer_ends_within_drafts_that_are_right(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At an end of sequence, nothing behind it is taken over."""
    expected = alone(model, Request(prompt(20), params=greedy(25)))
    end = next(at for at in range(2, 25) if expected[at] not in expected[:at] and at % 4 == 2)
    monkeypatch.setattr(Oracle, "answer", tuple(expected))
    monkeypatch.setattr(Oracle, "prompt_length", 20)
    monkeypatch.setattr(Oracle, "right", 3)
    monkeypatch.setattr("mvlm.runtime.engine.scheduler.NgramDrafter", Oracle)
    engine = Engine(model, EngineSettings(speculate="ngram"))
    (answer,) = engine.submit(Request(prompt(20), (), greedy(25), frozenset({expected[end]})))
    assert list(engine.tokens(answer)) == expected[: end + 1]
    assert answer.finish_reason == "stop"
    # What is kept of it is what was answered.
    further = [*prompt(20), *expected[:end]]
    assert engine.prefixes.match(further).length == len(further)
    assert engine.prefixes.match([*further, *expected[end:]]).length == len(further)


def test_drafts_end_at_the_end_of_the_context(
    chunked: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone(chunked, Request(prompt(100), params=greedy(100)))
    assert len(expected) == 31
    monkeypatch.setattr(Oracle, "answer", (*expected, 5, 6, 7, 8))
    monkeypatch.setattr(Oracle, "prompt_length", 100)
    monkeypatch.setattr(Oracle, "right", 3)
    monkeypatch.setattr("mvlm.runtime.engine.scheduler.NgramDrafter", Oracle)
    engine = Engine(chunked, EngineSettings(speculate="ngram"))
    (answer,) = engine.submit(Request(prompt(100), params=greedy(100)))
    assert list(engine.tokens(answer)) == expected
    assert answer.finish_reason == "length"


def test_repeated_text_is_drafted_and_off_means_off(model: Model) -> None:
    request = Request([1, *prompt(20)[1:] * 4], params=greedy(12))
    expected, drafted = alone(model, request), {}
    for mode in ("off", "ngram", "auto"):
        engine = Engine(model, EngineSettings(speculate=mode))  # type: ignore[arg-type]
        # The second time, the end of the prompt is all that is computed of it, with drafts.
        for _ in range(2):
            (answer,) = engine.submit(request)
            assert list(engine.tokens(answer)) == expected
        drafted[mode] = answer.stats.drafted
    assert drafted["off"] == 0 < drafted["ngram"]


def test_no_page_is_left_for_a_copy_of_a_shared_one(chunked: Model) -> None:
    """Its positions are computed anew, and the drafts are not taken for one of them."""
    request = Request(prompt(45) * 2, params=greedy(10))
    expected = alone(chunked, request, context=100)
    engine = Engine(chunked, EngineSettings(context=100, speculate="ngram"))
    assert engine.pool.size == 2
    for _ in range(3):
        (answer,) = engine.submit(request)
        assert list(engine.tokens(answer)) == expected
    assert answer.stats.computed == 90 - 64
