"""The engine: how answers come and end, who waits for whom, and what others' mistakes cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from mvlm.runtime.engine import Answer, Engine, EngineSettings, Request
from mvlm.runtime.engine import engine as engine_module
from mvlm.runtime.engine.batch import Rows
from mvlm.runtime.errors import ContextError, MvlmError, PromptError, UsageError
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID
from tests.forward import logits_of
from tests.runtime.engine.asking import (
    IMAGE_TOKENS,
    PAGE,
    VOCABULARY,
    Floats,
    alone,
    ask,
    check_pages,
    finish,
    greedy,
    pixels,
    prompt,
)

IDS = [1, 17, 4, 250, 33]
PLAIN = EngineSettings(speculate="off")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[Rows]]:
    """The rows of each step from now on."""
    found, compute = list[list[Rows]](), engine_module.compute

    def noted(model: Model, cache: object, batch: Sequence[Rows]) -> list[Floats]:
        found.append(list(batch))
        return compute(model, cache, batch)

    monkeypatch.setattr(engine_module, "compute", noted)
    return found


def submit(engine: Engine, ids: list[int], tokens: int = 10, **options: Any) -> Answer:
    (answer,) = engine.submit(Request(ids, params=greedy(tokens), **options))
    return answer


def begin(engine: Engine, ids: list[int], tokens: int = 10, **options: Any) -> Answer:
    """Ask for an answer, and compute its first token."""
    answer = submit(engine, ids, tokens, **options)
    next(engine.tokens(answer))
    return answer


def check_alone(model: Model, *answers: Answer, context: int | None = None) -> None:
    """Finished answers are those that they are alone."""
    for answer in answers:
        assert answer.error is None and answer.finish_reason in ("length", "stop")
        assert answer.tokens == alone(model, replace(answer.request, timeout=None), context)


# --- how an answer comes and ends ---------------------------------------------------------------


def test_greedy_tokens_are_those_of_whole_prefills(model: Model) -> None:
    """Each token is the best one behind a prefill of all tokens before it."""
    tokens = ask(Engine(model), IDS, tokens=8).tokens
    assert len(tokens) == 8
    for number, token in enumerate(tokens):
        assert token == int(logits_of(model, [*IDS, *tokens[:number]])[-1].argmax())


def test_nothing_is_computed_before_the_first_step(model: Model, steps: list[list[Rows]]) -> None:
    engine = Engine(model)
    assert engine.is_idle and not engine.step()
    tokens = engine.tokens(submit(engine, IDS))
    assert not engine.is_idle and not steps
    assert engine.pool.free == engine.pool.size
    next(tokens)
    assert [[rows.total for rows in step] for step in steps] == [[len(IDS)]]


def test_an_answer_that_is_left_is_computed_no_further(
    model: Model, steps: list[list[Rows]]
) -> None:
    engine = Engine(model, PLAIN)
    answer = submit(engine, IDS)
    left = list(islice(engine.tokens(answer), 3))
    assert len(steps) == answer.stats.steps == 3  # the last token has not been decoded
    # It may be taken up again, from its first token on.
    assert list(engine.tokens(answer))[:3] == left
    check_alone(model, answer)


@pytest.mark.parametrize("number", [0, 1, 5])
def test_an_answer_ends_after_an_end_of_sequence(model: Model, number: int) -> None:
    whole = ask(Engine(model), IDS, tokens=8).tokens
    end = whole[number]
    answer = ask(Engine(model), IDS, tokens=8, eos=frozenset({383, end}))
    assert answer.tokens == whole[: whole.index(end) + 1]
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("free", [0, 1, 4])
def test_an_answer_ends_where_the_context_is_full(model: Model, free: int) -> None:
    """The last token takes no position: it is sampled, and not decoded."""
    engine = Engine(model, EngineSettings(context=len(IDS) + free))
    answer = ask(engine, IDS, tokens=40)
    assert answer.tokens == ask(Engine(model), IDS, tokens=1 + free).tokens
    assert answer.finish_reason == "length"


def test_an_answer_is_finished_when_its_last_token_has_come(model: Model) -> None:
    engine = Engine(model)
    answer = submit(engine, IDS, 3)
    seen = [(token, answer.is_finished) for token in engine.tokens(answer)]
    assert [is_finished for _, is_finished in seen][-1]
    assert engine.is_idle and not answer.is_cancelled
    # To cancel it then changes nothing.
    answer.cancel()
    engine.step()
    assert (answer.finish_reason, len(answer.tokens)) == ("length", 3)


def test_statistics(model: Model) -> None:
    engine = Engine(model, PLAIN)
    before = time.perf_counter()
    answer = ask(engine, [*prompt(20), IMAGE_TOKEN_ID], pixels(), tokens=6)
    stats = answer.stats
    assert before <= stats.submitted <= time.perf_counter()
    assert (stats.prompt, stats.computed, stats.steps) == (24, 24, 6)
    assert (stats.drafted, stats.accepted, stats.preemptions) == (0, 0, 0)
    assert stats.image_seconds > 0 and stats.prefill_seconds > 0


def test_logits_of_all_positions(model: Model) -> None:
    engine, ids = Engine(model), [*prompt(70), IMAGE_TOKEN_ID, 5]
    other = begin(engine, prompt(30), 20)
    found = engine.logits(ids, [pixels()])
    np.testing.assert_array_equal(found, logits_of(model, ids, pixels=[pixels()]))
    finish(engine)
    check_alone(model, other)
    with pytest.raises(ContextError):
        Engine(model, EngineSettings(context=20)).logits(prompt(21))


# --- several answers to one prompt --------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 30, 64, 65, 130])
def test_answers_to_one_prompt_share_it(model: Model, length: int) -> None:
    params = SamplingParams(temperature=1.0, seed=5, max_tokens=10)
    request = Request(prompt(length), params=params)
    engine = Engine(model)
    answers = engine.submit(request, 4)
    finish(engine)
    assert [answer.stats.computed for answer in answers] == [length, 0, 0, 0]
    assert [answer.stats.prompt for answer in answers] == [length] * 4
    for number, answer in enumerate(answers):
        assert answer.tokens == alone(
            model, replace(request, params=replace(params, seed=5 + number))
        )
    assert len({tuple(answer.tokens) for answer in answers}) == 4


def test_more_answers_than_run_at_once(model: Model) -> None:
    engine = Engine(model, EngineSettings(max_running=2))
    answers = engine.submit(Request(prompt(30), params=greedy(10)), 5)
    finish(engine)
    check_alone(model, *answers)
    assert sum(answer.stats.computed for answer in answers) <= 30 + 4


def test_answers_without_a_seed_differ(model: Model) -> None:
    engine = Engine(model)
    params = SamplingParams(temperature=2.0, max_tokens=20)
    answers = engine.submit(Request(prompt(10), params=params), 3)
    finish(engine)
    assert len({tuple(answer.tokens) for answer in answers}) == 3


@pytest.mark.parametrize("done", [0, 1, 3])
def test_the_first_of_some_answers_is_cancelled(chunked: Model, done: int) -> None:
    """Before its prompt is computed, or after."""
    engine = Engine(chunked)
    first, *others = engine.submit(Request(prompt(20), params=greedy(10)), 3)
    for _ in range(done):
        engine.step()
    first.cancel()
    finish(engine)
    assert first.finish_reason == "cancelled"
    check_alone(chunked, *others)
    # One of them goes on with the prompt, and the other one waits for it.
    computed = [answer.stats.computed for answer in others]
    assert computed[0] <= 20 and computed[1] == 0


# --- who waits for whom -------------------------------------------------------------------------


def test_answers_wait_while_a_prompt_is_read_no_longer_than_a_short_step(
    model: Model, steps: list[list[Rows]]
) -> None:
    engine = Engine(model, EngineSettings(prefill_rows=16, speculate="off"))
    answer = begin(engine, prompt(20), 40)
    steps.clear()
    other = begin(engine, prompt(150, seed=1), 5)
    assert len(answer.tokens) == 1 + len(steps) == 1 + -(-150 // 15)
    assert {sum(rows.total for rows in step) for step in steps} == {16}
    finish(engine)
    check_alone(model, answer, other)


def test_prompts_are_read_in_large_steps_where_nobody_waits(
    model: Model, steps: list[list[Rows]]
) -> None:
    engine = Engine(model, EngineSettings(prefill_rows=16))
    answers = [submit(engine, prompt(100, seed), 3) for seed in range(4)]
    engine.step()
    assert [rows.total for rows in steps[0]] == [100] * 4
    finish(engine)
    check_alone(model, *answers)


def test_a_prompt_that_begins_like_one_that_is_computed_waits_for_it(chunked: Model) -> None:
    engine = Engine(chunked)
    first = submit(engine, prompt(100), 3)
    engine.step()
    second = submit(engine, [*prompt(90), 5, 6], 3)
    # Too little to wait for.
    third = submit(engine, [*prompt(40), 7], 3)
    finish(engine)
    check_alone(chunked, first, second, third)
    # A whole page, at the least.
    assert second.stats.computed <= 92 - PAGE
    assert third.stats.computed == 41


@pytest.mark.parametrize("most", [1, 2, 5])
def test_more_requests_than_run_at_once(model: Model, steps: list[list[Rows]], most: int) -> None:
    engine = Engine(model, EngineSettings(max_running=most))
    answers = [submit(engine, prompt(5 + seed, seed), 6) for seed in range(12)]
    finish(engine)
    check_alone(model, *answers)
    assert max(len(step) for step in steps) == most
    assert not any(answer.stats.preemptions for answer in answers)


def test_a_pool_that_is_full_of_running_sequences(model: Model, steps: list[list[Rows]]) -> None:
    """The others wait, and all finish."""
    engine = Engine(model, EngineSettings(context=4 * PAGE, capacity=4 * PAGE))
    answers = [submit(engine, prompt(PAGE + 30, seed), 20) for seed in range(7)]
    engine.step()
    assert engine.pool.free + engine.prefixes.evictable < 2
    finish(engine)
    check_alone(model, *answers, context=4 * PAGE)
    assert max(len(step) for step in steps) == 2


def test_requests_of_equal_priority_go_in_turn(model: Model) -> None:
    engine = Engine(model, EngineSettings(max_running=1))
    answers = [submit(engine, prompt(5, seed), 4) for seed in range(4)]
    ended = order_of_ends(engine, answers)
    assert ended == [0, 1, 2, 3]


def test_requests_of_a_higher_priority_go_first(model: Model) -> None:
    """They take the place of one that runs, which goes on later."""
    engine = Engine(model, EngineSettings(max_running=1))
    low = begin(engine, prompt(5, 0), 10)
    answers = [low, *(submit(engine, prompt(5, 1 + each), 4, priority=each) for each in range(3))]
    assert order_of_ends(engine, answers) == [3, 2, 0, 1]
    check_alone(model, *answers)
    assert [answer.stats.preemptions for answer in answers] == [1, 0, 0, 0]


def order_of_ends(engine: Engine, answers: Sequence[Answer]) -> list[int]:
    """Compute all answers; their numbers in the order in which they finish."""
    ended: list[int] = []
    while not engine.is_idle:
        engine.step()
        ended += [
            number
            for number, answer in enumerate(answers)
            if answer.is_finished and number not in ended
        ]
    check_pages(engine)
    return ended


@pytest.mark.parametrize("speculate", ["off", "ngram", "auto"])
def test_two_long_answers_in_a_pool_for_one_and_a_half(model: Model, speculate: Any) -> None:
    """The later one gives up its pages, and goes on when the first has finished."""
    settings = EngineSettings(context=4 * PAGE, capacity=6 * PAGE, speculate=speculate)
    engine = Engine(model, settings)
    first = submit(engine, prompt(20, 1), 4 * PAGE - 20)
    second = submit(engine, prompt(20, 2), 4 * PAGE - 20)
    finish(engine)
    check_alone(model, first, second, context=4 * PAGE)
    assert first.stats.preemptions == 0 < second.stats.preemptions
    assert len(second.tokens) == 4 * PAGE - 20


def test_a_seeded_answer_goes_on_with_its_own_random_numbers(model: Model) -> None:
    params = SamplingParams(temperature=1.2, seed=3, max_tokens=150, repetition_penalty=1.2)
    request = Request([*prompt(20), IMAGE_TOKEN_ID], [pixels()], params)
    settings = EngineSettings(context=4 * PAGE, capacity=5 * PAGE)
    engine = Engine(model, settings)
    first = submit(engine, prompt(20, 2), 200)
    (second,) = engine.submit(request)
    finish(engine)
    check_alone(model, first, second, context=4 * PAGE)
    assert second.stats.preemptions > 0


def test_as_many_sequences_as_a_chunk_has_no_rows_for(chunked: Model) -> None:
    """A model of small chunks answers as many at once as another; an image's rows among them."""
    engine = Engine(chunked, EngineSettings(capacity=40 * PAGE))
    answers = [submit(engine, prompt(5, seed), 40) for seed in range(15)]
    while not all(answer.tokens for answer in answers):
        engine.step()
    answers += engine.submit(Request([1, 5, IMAGE_TOKEN_ID], [pixels()], greedy(30)))
    finish(engine)
    check_alone(chunked, *answers)


def test_an_image_at_the_end_has_no_drafts_behind_it(
    chunked: Model, steps: list[list[Rows]]
) -> None:
    """Its row is computed as a prompt's are: a chunk may hold fewer rows than are drafted."""
    engine = Engine(chunked)
    for rows in range(1, 17):  # as if drafts cost nothing, and were always right
        engine._planner.measured(rows, 1.0)
    for kind in (2, 3, 4):
        engine._planner.learn(kind, 100, 0)
    ids = [1, 5, IMAGE_TOKEN_ID, *range(7, 20), 5, IMAGE_TOKEN_ID]
    request = Request(ids, [pixels()] * 2, greedy(10))
    engine.read_ahead(request)
    finish(engine)
    steps.clear()
    (answer,) = engine.submit(request)
    next(engine.tokens(answer))
    assert [(rows.count, rows.drafts) for step in steps for rows in step] == [(1, ())]
    finish(engine)
    check_alone(chunked, answer)


def test_images_are_encoded_in_parts_while_others_are_answered(model: Model) -> None:
    """A part in a step. Even if no more than one image is kept, none is encoded twice."""
    engine = Engine(model, EngineSettings(image_bytes=IMAGE_TOKENS * 256 * 4, speculate="off"))
    answer = begin(engine, prompt(20), 30)
    images = [pixels(seed) for seed in range(4)]
    ids = [1, *[IMAGE_TOKEN_ID] * 4, 5]
    (other,) = engine.submit(Request(ids, images, greedy(3)))
    before = len(answer.tokens)
    next(engine.tokens(other))
    # Two parts of the tower and the projector, and then the prompt.
    assert len(answer.tokens) - before == 4 * 3 + 1
    finish(engine)
    check_alone(model, answer, other)


def test_parts_of_images_take_turns_with_chunks_of_prompts(
    model: Model, steps: list[list[Rows]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who is answered waits for both, and neither waits for the other's end."""
    engine = Engine(model, EngineSettings(prefill_rows=16, speculate="off"))
    answer, parts = begin(engine, prompt(20), 60), list[int]()
    advance = engine.images.advance

    def noted(*arguments: Any) -> Any:
        parts.append(len(steps))
        return advance(*arguments)

    monkeypatch.setattr(engine.images, "advance", noted)
    others = [submit(engine, prompt(150, seed=1), 3)]
    others += engine.submit(Request([1, IMAGE_TOKEN_ID, 5], [pixels(5)], greedy(3)))
    finish(engine)
    check_alone(model, answer, *others)
    assert len(parts) == 3 and all(np.diff(parts) == 2)
    assert {rows.total for part in parts for rows in steps[part]} == {1}
    assert {rows.total for part in parts[1:] for rows in steps[part - 1]} == {1, 15}


def test_an_image_that_is_given_up_in_the_middle(model: Model) -> None:
    """The next one is encoded from its beginning, whatever was encoded of the other one."""
    engine = Engine(model)
    for given_up, seed in ((1, 1), (2, 2), (1, 1)):
        (answer,) = engine.submit(Request([1, IMAGE_TOKEN_ID], [pixels(seed)], greedy(3)))
        for _ in range(given_up):
            engine.step()
        answer.cancel()
        (other,) = engine.submit(Request([1, IMAGE_TOKEN_ID], [pixels(seed + 5)], greedy(3)))
        finish(engine)
        assert answer.finish_reason == "cancelled" and not answer.tokens
        check_alone(model, other)


# --- probabilities ------------------------------------------------------------------------------


@pytest.mark.parametrize("speculate", ["off", "ngram"])
@pytest.mark.parametrize("count", [0, 1, 5, VOCABULARY])
def test_probabilities_are_those_of_the_logits(chunked: Model, speculate: Any, count: int) -> None:
    """Of the prompt's tokens and of the answer's, in company, whatever is in the cache."""
    engine = Engine(chunked, EngineSettings(capacity=9 * PAGE, speculate=speculate))
    ids = [*prompt(30), IMAGE_TOKEN_ID, 5, 6, 5, 6, 5]
    ask(engine, ids, pixels())
    others = [submit(engine, prompt(12, seed)) for seed in range(3)]
    params = SamplingParams(temperature=0.7, seed=2, max_tokens=8, repetition_penalty=1.2)
    request = Request(ids, [pixels()], params, logprobs=count, prompt_logprobs=count)
    (answer,) = engine.submit(request)
    finish(engine)
    check_alone(chunked, answer, *others)
    whole = [*ids[:30], *[None] * IMAGE_TOKENS, *ids[31:], *answer.tokens]
    logits = logits_of(chunked, [*ids, *answer.tokens], pixels=[pixels()])
    found = [*answer.prompt_logprobs, *answer.logprobs]
    assert found[0] is None and len(found) == len(whole)
    for each, token, before in zip(found[1:], whole[1:], logits, strict=False):
        assert (each is None) == (token is None)
        if each is not None and token is not None:
            expected = before.astype(np.float64)
            expected -= np.log(np.exp(expected - expected.max()).sum()) + expected.max()
            assert each.token == token
            assert each.logprob == pytest.approx(expected[token], abs=1e-9)
            best = sorted(range(VOCABULARY), key=lambda index: (-expected[index], index))[:count]
            assert [index for index, _ in each.top] == best


def test_prompt_probabilities_of_a_preempted_answer(model: Model) -> None:
    settings = EngineSettings(context=4 * PAGE, capacity=5 * PAGE, speculate="off")
    engine, ids = Engine(model, settings), prompt(150, 3)
    submit(engine, prompt(20, 2), 200)
    (second,) = engine.submit(Request(ids, params=greedy(60), prompt_logprobs=0))
    finish(engine)
    assert second.stats.preemptions > 0
    assert [each.token for each in second.prompt_logprobs if each] == ids[1:]


# --- the end before the end ---------------------------------------------------------------------


def test_cancelling(model: Model) -> None:
    engine = Engine(model)
    others = [submit(engine, prompt(10, seed)) for seed in range(2)]
    answer = begin(engine, prompt(10, 5))
    tokens = list(answer.tokens)
    answer.cancel()
    assert not answer.is_finished
    assert list(engine.tokens(answer)) == tokens
    assert answer.finish_reason == "cancelled" and answer.error is None
    finish(engine)
    check_alone(model, *others)
    # What was computed of it is not computed again.
    assert ask(engine, prompt(10, 5)).stats.computed == 1


def test_cancelling_a_request_that_never_started(model: Model, steps: list[list[Rows]]) -> None:
    engine = Engine(model, EngineSettings(max_running=1))
    running = begin(engine, prompt(10, 1))
    waiting = submit(engine, prompt(10, 2))
    (with_image,) = engine.submit(Request([1, IMAGE_TOKEN_ID], [pixels(77)]))
    ahead = engine.read_ahead(Request(prompt(10, 3)))
    for answer in (waiting, with_image, ahead):
        answer.cancel()
    finish(engine)
    for answer in (waiting, with_image, ahead):
        assert (answer.finish_reason, answer.tokens, answer.stats.steps) == ("cancelled", [], 0)
    check_alone(model, running)
    assert {rows.positions.ids[1] for step in steps for rows in step} == {prompt(10, 1)[1]}
    assert engine.images.seconds == 0
    # An engine that has nothing else to do ends them as well.
    submit(engine, prompt(5)).cancel()
    assert not engine.step() and engine.is_idle


def test_an_answer_whose_time_is_over(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    away, clock = 0.0, time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + away)
    engine = Engine(model, EngineSettings(max_running=2))
    other = submit(engine, prompt(10, 1), 20)
    answer = begin(engine, prompt(10, 2), 20, timeout=1000.0)
    waiting = submit(engine, prompt(10, 3), timeout=1000.0)
    tokens = list(answer.tokens)
    away = 1001.0
    finish(engine)
    assert (answer.finish_reason, answer.tokens, answer.error) == ("timeout", tokens, None)
    assert (waiting.finish_reason, waiting.tokens) == ("timeout", [])
    check_alone(model, other)


def test_clearing_ends_all_answers(model: Model) -> None:
    engine = Engine(model, EngineSettings(max_running=1))
    running, waiting = begin(engine, prompt(80)), submit(engine, prompt(5))
    engine.clear()
    assert (running.finish_reason, waiting.finish_reason) == ("cancelled", "cancelled")
    assert engine.is_idle and engine.pool.free == engine.pool.size
    assert ask(engine, prompt(80)).stats.computed == 80


# --- other people's mistakes --------------------------------------------------------------------


def test_a_request_over_the_context_is_refused_at_once(model: Model) -> None:
    engine = Engine(model, EngineSettings(context=50))
    answer = begin(engine, prompt(10), 20)
    with pytest.raises(ContextError, match="expected at most 50 positions, found 51"):
        submit(engine, prompt(51))
    with pytest.raises(ContextError, match="expected at most 50 positions, found 53"):
        engine.submit(Request([*prompt(49), IMAGE_TOKEN_ID], [pixels()]))
    finish(engine)
    check_alone(model, answer, context=50)


def test_an_image_budget_of_less_than_one_image(model: Model) -> None:
    with pytest.raises(UsageError, match=r"image.* expected at least 4096 bytes, .*found 4095"):
        Engine(model, EngineSettings(image_bytes=4095))


@pytest.mark.parametrize(
    ("ids", "images"),
    [([1, 384], ()), ([1, -3, 5], ()), ([], ()), ([1, IMAGE_TOKEN_ID], ()), ([1, 5], (pixels(),))],
    ids=["beyond the vocabulary", "negative", "nothing", "no image", "no place"],
)
def test_a_bad_prompt_costs_others_nothing(
    model: Model, ids: list[int], images: tuple[Floats, ...]
) -> None:
    engine = Engine(model)
    others = [begin(engine, prompt(10, seed), 20) for seed in range(3)]
    with pytest.raises(PromptError):
        engine.submit(Request(ids, images))
    finish(engine)
    check_alone(model, *others)


@pytest.mark.parametrize("place", [0, 1])
def test_misshapen_pixels_in_the_middle_of_a_batch(model: Model, place: int) -> None:
    """That request fails by a sentence, and the others know nothing of it."""
    engine = Engine(model)
    others = [begin(engine, prompt(10, seed), 30) for seed in range(3)]
    images = [pixels(1), pixels(2)]
    images[place] = np.zeros((1, 3, 28, 27), np.float32)
    (answer,) = engine.submit(Request([1, IMAGE_TOKEN_ID, IMAGE_TOKEN_ID], images, greedy(5)))
    others.append(submit(engine, prompt(10, 9), 30))
    with pytest.raises(PromptError, match=r"pixels: expected float32 \(1, 3, 28, 28\), found"):
        list(engine.tokens(answer))
    assert (answer.finish_reason, answer.tokens) == ("error", [])
    assert not any(other.is_finished for other in others)
    finish(engine)
    check_alone(model, *others)


@pytest.mark.parametrize("speculate", ["off", "ngram"])
@pytest.mark.parametrize("given", [0, 4])
def test_numbers_that_are_none_fail_one_answer_only(
    model: Model, monkeypatch: pytest.MonkeyPatch, speculate: Any, given: int
) -> None:
    engine = Engine(model, EngineSettings(speculate=speculate))
    ids, compute = prompt(12, 7), engine_module.compute

    def damaged(model: Model, cache: Any, batch: Sequence[Rows]) -> list[Floats]:
        found = compute(model, cache, batch)
        for rows, logits in zip(batch, found, strict=True):
            if rows.positions.ids[:12] == ids and len(rows.positions.ids) == 12 + given:
                logits[:, 5] = np.nan
        return found

    monkeypatch.setattr(engine_module, "compute", damaged)
    others = [submit(engine, prompt(10, seed), 20) for seed in range(3)]
    answer = submit(engine, ids, 20)
    others.append(submit(engine, prompt(10, 9), 20))
    with pytest.raises(MvlmError, match="the model's logits are not finite"):
        list(engine.tokens(answer))
    monkeypatch.setattr(engine_module, "compute", compute)
    assert answer.finish_reason == "error"
    assert answer.tokens == alone(model, answer.request)[:given]
    finish(engine)
    check_alone(model, *others)


def test_answers_that_share_a_damaged_prompt_all_fail(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, compute = Engine(model), engine_module.compute

    def damaged(model: Model, cache: Any, batch: Sequence[Rows]) -> list[Floats]:
        return [logits * np.nan for logits in compute(model, cache, batch)]

    monkeypatch.setattr(engine_module, "compute", damaged)
    answers = engine.submit(Request(IDS, params=greedy(5)), 3)
    finish(engine)
    assert [answer.finish_reason for answer in answers] == ["error"] * 3


# --- reading ahead ------------------------------------------------------------------------------


def test_what_was_read_ahead_is_not_computed_again(model: Model) -> None:
    engine, ids = Engine(model), [*prompt(80), IMAGE_TOKEN_ID, 7]
    ahead = engine.read_ahead(Request(ids, [pixels()]))
    finish(engine)
    assert (ahead.finish_reason, ahead.tokens, ahead.stats.computed) == ("length", [], 85)
    answer = ask(engine, [*ids, 8, 9], pixels(), tokens=5)
    assert (answer.stats.computed, answer.stats.image_seconds) == (2, 0)
    finish(engine)
    (again,) = engine.submit(Request([*ids, 8, 9], [pixels()], greedy(5)))
    assert list(engine.tokens(again)) == answer.tokens
    engine.clear()
    assert ask(engine, [*ids, 8, 9], pixels(), tokens=5).tokens == answer.tokens


def test_a_prompt_that_comes_takes_over_what_is_read_ahead_by_then(chunked: Model) -> None:
    engine = Engine(chunked)
    ahead = engine.read_ahead(Request(prompt(100)))
    for _ in range(3):
        engine.step()
    answer = submit(engine, [*prompt(60), 5, 6], 5)
    engine.step()
    assert ahead.finish_reason == "cancelled"
    finish(engine)
    check_alone(chunked, answer)
    assert answer.stats.computed == 62 - 3 * 7


def test_what_has_nothing_in_common_is_read_on_later(
    chunked: Model, steps: list[list[Rows]]
) -> None:
    engine = Engine(chunked, EngineSettings(capacity=6 * PAGE))
    ahead = engine.read_ahead(Request(prompt(100)))
    for _ in range(3):
        engine.step()
    steps.clear()
    answer = submit(engine, [2, 5, 6, 7], 5)
    assert list(engine.tokens(answer)) == alone(chunked, answer.request)
    assert not ahead.is_finished
    # Nothing was read ahead meanwhile.
    assert all(len(step) == 1 and step[0].positions.ids[0] == 2 for step in steps)
    finish(engine)
    assert ahead.finish_reason == "length"
    assert ask(engine, [*prompt(100), 5]).stats.computed == 1


def test_nothing_is_read_ahead_while_others_are_answered(
    model: Model, steps: list[list[Rows]]
) -> None:
    engine = Engine(model)
    answer = begin(engine, prompt(10), 10)
    ahead = engine.read_ahead(Request([2, *prompt(50)]))
    steps.clear()
    while not answer.is_finished:
        engine.step()
    assert all(len(step) == 1 for step in steps) and not ahead.is_finished
    finish(engine)
    assert ahead.finish_reason == "length"


def test_reading_ahead_gives_its_pages_to_answers(model: Model) -> None:
    settings = EngineSettings(context=4 * PAGE, capacity=4 * PAGE, prefill_rows=16)
    engine = Engine(model, settings)
    ahead = engine.read_ahead(Request([2, *prompt(3 * PAGE)]))
    for _ in range(6):
        engine.step()
    answer = submit(engine, prompt(PAGE * 3), 30)
    assert list(engine.tokens(answer)) == alone(model, answer.request, 4 * PAGE)
    finish(engine)
    assert ahead.finish_reason == "length"
    assert answer.stats.preemptions == 0


def test_a_cancelled_prompt_leaves_what_was_read_of_it(chunked: Model) -> None:
    engine = Engine(chunked)
    ahead = engine.read_ahead(Request(prompt(100)))
    engine.step()
    ahead.cancel()
    finish(engine)
    assert ahead.finish_reason == "cancelled"
    assert ask(engine, prompt(100)).stats.computed == 93
