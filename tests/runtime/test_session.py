"""However a prompt gets into the KV cache, the cache then holds the same."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mvlm.runtime.errors import ContextError, PromptError, UsageError
from mvlm.runtime.model import Model
from mvlm.runtime.session import Session, Trace
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID
from tests.artifacts import Shelf

Floats = npt.NDArray[np.float32]

# Grouped KV heads, and 4 positions a picture.
FAMILY = "linear"
CHUNK = 7
# The same float32 sums, cut differently: 1 row takes another kernel than many.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def model(shelf: Shelf) -> Model:
    """Reads in chunks of 512."""
    return Model(shelf.artifact(FAMILY))


@pytest.fixture(scope="module")
def chunked(shelf: Shelf) -> Model:
    """The same model, in chunks of 7, and with a context of 64."""
    return Model(shelf.artifact(FAMILY, prefill_chunk=CHUNK, context=64))


def prompt(length: int, seed: int = 0) -> list[int]:
    return [1, *np.random.default_rng(seed).integers(3, 384, length - 1).tolist()]


def pixels(seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((1, 3, 28, 28), np.float32)


def all_logits(model: Model, ids: list[int]) -> Floats:
    """What the model says after every position, read in one go."""
    return model.prefill(model.embed(ids), model.new_cache(), all_logits=True)


def same(left: Floats, right: Floats) -> None:
    np.testing.assert_allclose(left, right, atol=TOLERANCE)


# --- one go, chunks, single tokens --------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 6, 7, 8, 13, 14, 15, 50])
def test_compiled_chunks_agree_with_one_go(model: Model, chunked: Model, length: int) -> None:
    ids = prompt(length)
    expected = all_logits(model, ids)
    same(all_logits(chunked, ids), expected)
    # Only the last position's logits: another function.
    embeddings = chunked.embed(ids)
    same(chunked.prefill(embeddings, chunked.new_cache()), expected[-1:])


@pytest.mark.parametrize("sizes", [(1, 19), (19, 1), (3, 5, 12), (15, 1, 1, 3), (16, 4), (17, 3)])
def test_pieces_agree_with_one_go(model: Model, sizes: tuple[int, ...]) -> None:
    """Around the cache's pages of 16 as well."""
    ids = prompt(sum(sizes))
    cache, embeddings, begin, rows = model.new_cache(), model.embed(ids), 0, []
    for size in sizes:
        part = embeddings[:, begin : begin + size]
        rows.append(model.prefill(part, cache, all_logits=True))
        begin += size
        assert cache.length == begin
    same(np.concatenate(rows), all_logits(model, ids))


def test_token_by_token_agrees_with_one_go(model: Model) -> None:
    ids = prompt(40)
    cache = model.new_cache()
    rows = [model.decode(token, cache) for token in ids]
    same(np.concatenate(rows), all_logits(model, ids))


def test_embeddings_of_more_tokens_than_a_chunk(model: Model, chunked: Model) -> None:
    ids = prompt(50)
    found = chunked.embed(ids)
    assert found.shape == (1, 50, 256)
    np.testing.assert_array_equal(found, model.embed(ids))
    # Beyond what memory is planned for in either.
    long = prompt(1500)
    np.testing.assert_array_equal(model.embed(long)[0, ::499], model.embed(long[::499])[0])


@pytest.mark.parametrize("offset", [4, 16, 32])
def test_arrays_at_any_address(model: Model, offset: int) -> None:
    """NumPy aligns to 16 bytes, compiled code reads vectors of 32 and more."""

    def moved(array: Floats) -> Floats:
        room = np.empty(array.nbytes + 128, np.uint8)
        begin = -room.ctypes.data % 64 + offset
        copy = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        assert copy.ctypes.data % 64 == offset
        return copy

    features = model.vision_features(pixels())
    np.testing.assert_array_equal(model.vision_features(moved(pixels())), features)
    np.testing.assert_array_equal(model.project(moved(features)), model.project(features))
    embeddings = model.embed(prompt(9))
    np.testing.assert_array_equal(
        model.prefill(moved(embeddings), model.new_cache()),
        model.prefill(embeddings, model.new_cache()),
    )


def test_results_are_not_overwritten_by_the_next_call(model: Model) -> None:
    first = model.embed([5])
    copy = first.copy()
    model.embed([6])
    np.testing.assert_array_equal(first, copy)


# --- rewinding ----------------------------------------------------------------------------------


def test_rewind_and_read_again(model: Model) -> None:
    ids = prompt(40)
    expected = all_logits(model, ids)
    cache = model.new_cache()
    model.prefill(model.embed(ids), cache)
    for length in (39, 33, 32, 31, 17, 16, 15, 1, 0):
        cache.rewind(length)
        assert cache.length == length
        same(model.prefill(model.embed(ids[length:]), cache, all_logits=True), expected[length:])


def test_random_walk_of_readings_and_rewinds(model: Model) -> None:
    random = np.random.default_rng(1)
    cache, held = model.new_cache(96), list[int]()
    for _ in range(60):
        if random.random() < 0.4:
            held = held[: random.integers(0, len(held) + 1)]
            cache.rewind(len(held))
            continue
        new = random.integers(3, 384, random.integers(1, 30)).tolist()
        if len(held) + len(new) > 96:
            with pytest.raises(ContextError):
                model.prefill(model.embed(new), cache)
            continue
        held += new
        found = model.prefill(model.embed(new), cache)
        same(found, all_logits(model, held)[-1:])
    cache.clear()
    assert cache.length == 0
    same(model.prefill(model.embed(prompt(5)), cache), all_logits(model, prompt(5))[-1:])


def test_rewinding_forwards_does_nothing(model: Model) -> None:
    cache = model.new_cache()
    model.prefill(model.embed(prompt(5)), cache)
    cache.rewind(9)
    assert cache.length == 5


# --- what a session takes from its cache --------------------------------------------------------


def test_a_longer_prompt_reads_what_is_new(model: Model) -> None:
    session, ids = Session(model), prompt(30)
    assert session.read(ids[:12]).computed == 12
    reading = session.read(ids)
    assert (reading.positions, reading.computed) == (30, 18)
    same(reading.logits, all_logits(model, ids)[-1])


def test_the_same_prompt_computes_its_last_position_again(model: Model) -> None:
    """Its logits are not kept."""
    session, ids = Session(model), prompt(30)
    first = session.read(ids)
    second = session.read(ids)
    assert second.computed == 1
    same(second.logits, first.logits)


@pytest.mark.parametrize("common", [0, 1, 15, 16, 17, 29])
def test_a_prompt_that_differs_costs_what_differs(model: Model, common: int) -> None:
    session = Session(model)
    session.read(prompt(30))
    ids = [*prompt(30)[:common], *np.random.default_rng(9).integers(3, 384, 12).tolist()]
    ids[common] = (prompt(31)[common] + 1) % 384
    reading = session.read(ids)
    assert reading.computed == len(ids) - common
    same(reading.logits, all_logits(model, ids)[-1])


def test_a_shorter_prompt(model: Model) -> None:
    session, ids = Session(model), prompt(30)
    session.read(ids)
    reading = session.read(ids[:10])
    assert reading.computed == 1
    same(reading.logits, all_logits(model, ids[:10])[-1])


def test_steps_are_part_of_what_was_read(model: Model) -> None:
    session, ids = Session(model), prompt(20)
    session.read(ids[:10])
    for token in ids[10:15]:
        logits = session.step(token)
    same(logits, all_logits(model, ids)[14])
    reading = session.read(ids)
    assert reading.computed == 5
    same(reading.logits, all_logits(model, ids)[-1])


def test_pictures_are_part_of_what_was_read(model: Model) -> None:
    ids = [1, 40, IMAGE_TOKEN_ID, 50, 60, IMAGE_TOKEN_ID, 70]
    session = Session(model)
    first, second = session.look(pixels(1)), session.look(pixels(2))
    assert session.length(ids) == 5 + 2 * 4
    before = session.read(ids, [first, second])
    assert (before.positions, before.computed) == (13, 13)
    # The same pictures in the same places: only the end is new.
    after = session.read([*ids, 80], [first, second])
    assert after.computed == 1
    # Another second picture: everything from its first position on.
    other = session.read(ids, [first, session.look(pixels(3))])
    assert other.computed == 1 + 4
    # The two exchanged.
    exchanged = session.read(ids, [second, first])
    assert exchanged.computed == 13 - 2

    def fresh(*seeds: int) -> Floats:
        new = Session(model)
        return new.read(ids, [new.look(pixels(seed)) for seed in seeds]).logits

    same(before.logits, fresh(1, 2))
    same(other.logits, fresh(1, 3))
    same(exchanged.logits, fresh(2, 1))


def test_a_picture_is_encoded_once(model: Model) -> None:
    session = Session(model)
    first = session.look(pixels(1))
    spent = session.vision_seconds
    assert spent > 0
    assert session.look(pixels(1).copy()) is first
    assert session.vision_seconds == spent
    assert session.look(pixels(2)) is not first


def test_many_pictures_do_not_pile_up(model: Model) -> None:
    session = Session(model)
    first = session.look(pixels(0))
    for seed in range(1, 12):
        session.look(pixels(seed))
    again = session.look(pixels(0))
    assert again is not first
    np.testing.assert_array_equal(again.embeddings, first.embeddings)
    assert len(session._pictures) < 12


def test_a_trace_reads_everything_anew(model: Model) -> None:
    session, ids, trace = Session(model), [1, 5, IMAGE_TOKEN_ID, 7], Trace()
    plain = session.read(ids, [session.look(pixels(1))])
    reading = session.read(ids, [session.look(pixels(1), trace)], trace)
    assert reading.computed == 7
    same(reading.logits, plain.logits)
    shapes = {name: array.shape for name, array in trace.arrays().items()}
    assert shapes == {
        "pixel_values": (1, 3, 28, 28),
        "vision_features": (1, 4, 64),
        "projector_output": (1, 4, 256),
        "prompt_ids": (4,),
        "prefill_logits": (7, 384),
    }
    assert session.read([*ids, 9], [session.look(pixels(1))]).computed == 1


def test_two_sessions_of_one_model_do_not_meet(model: Model) -> None:
    left, right = Session(model), Session(model)
    ids, others = prompt(20, seed=1), prompt(20, seed=2)
    left.read(ids[:10])
    right.read(others[:10])
    for token, other in zip(ids[10:], others[10:], strict=True):
        logits, other_logits = left.step(token), right.step(other)
    same(logits, all_logits(model, ids)[-1])
    same(other_logits, all_logits(model, others)[-1])


def test_clearing_forgets_the_text_and_keeps_the_pictures(model: Model) -> None:
    session, ids = Session(model), prompt(9)
    session.look(pixels())
    spent = session.vision_seconds
    session.read(ids)
    session.clear()
    assert session.cache.length == 0
    reading = session.read(ids)
    assert reading.computed == 9
    same(reading.logits, all_logits(model, ids)[-1])
    session.look(pixels())
    assert session.vision_seconds == spent


# --- the end of the context ---------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 2, 15, 16, 17, 31, 33, 64])
def test_a_context_that_is_exactly_full(chunked: Model, capacity: int) -> None:
    ids = prompt(capacity)
    session = Session(chunked, capacity)
    expected = all_logits(chunked, ids)
    reading = session.read(ids)
    assert reading.positions == session.cache.length == capacity
    same(reading.logits, expected[-1])
    with pytest.raises(ContextError, match=f"full: expected at most {capacity} positions"):
        session.step(5)
    # Nothing was lost by trying.
    same(session.read(ids).logits, expected[-1])
    if capacity > 1:
        assert session.read(ids[:-1]).computed == 1
        same(session.step(ids[-1]), expected[-1])


def test_a_prompt_over_the_context_leaves_the_session_as_it_was(chunked: Model) -> None:
    session, ids = Session(chunked, 20), prompt(20)
    session.read(ids[:18])
    with pytest.raises(ContextError, match="expected at most 20 positions, found 21"):
        session.read(prompt(21))
    assert session.cache.length == 18
    reading = session.read(ids)
    assert reading.computed == 2
    same(reading.logits, all_logits(chunked, ids)[-1])


def test_a_prefill_over_the_capacity_reads_nothing(chunked: Model) -> None:
    """Although its first chunks would fit."""
    cache = chunked.new_cache(20)
    with pytest.raises(ContextError):
        chunked.prefill(chunked.embed(prompt(21)), cache)
    assert cache.length == 0


@pytest.mark.parametrize("capacity", [0, -1, 65])
def test_capacities_that_the_model_has_not(chunked: Model, capacity: int) -> None:
    with pytest.raises(UsageError, match="context: expected 1 to 64"):
        Session(chunked, capacity)


def test_a_whole_context_token_by_token(chunked: Model) -> None:
    session, ids = Session(chunked), prompt(64)
    expected = all_logits(chunked, ids)
    session.read(ids[:1])
    for position in range(1, 64):
        same(session.step(ids[position]), expected[position])
    with pytest.raises(ContextError):
        session.step(5)


# --- what cannot be read ------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[], [384], [-1], [1, 10**12], [-(2**40)]])
def test_ids_that_are_none(model: Model, ids: list[int]) -> None:
    session = Session(model)
    session.read(prompt(5))
    with pytest.raises(PromptError):
        session.read([*ids])
    with pytest.raises(PromptError):
        model.embed(ids)
    reading = session.read(prompt(9))
    same(reading.logits, all_logits(model, prompt(9))[-1])


@pytest.mark.parametrize("token", [384, -1, IMAGE_TOKEN_ID, 2**31, -(2**40)])
def test_steps_outside_the_vocabulary(model: Model, token: int) -> None:
    """The compiled lookup does not check: it would read memory that is not the table's."""
    session = Session(model)
    session.read(prompt(5))
    with pytest.raises(PromptError, match="0 to 383"):
        session.step(token)
    same(session.step(7), all_logits(model, [*prompt(5), 7])[-1])


@pytest.mark.parametrize("places", [0, 2])
def test_pictures_and_places_must_match(model: Model, places: int) -> None:
    session = Session(model)
    ids = [1, *[IMAGE_TOKEN_ID] * places, 5]
    with pytest.raises(PromptError, match="1 pictures"):
        session.read(ids, [session.look(pixels())])


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((3, 28, 28), np.float32),
        np.zeros((2, 3, 28, 28), np.float32),
        np.zeros((1, 3, 28, 29), np.float32),
        np.zeros((1, 3, 28, 28), np.float64),
    ],
    ids=["no batch", "two", "too wide", "float64"],
)
def test_misshapen_pixels(model: Model, wrong: npt.NDArray[Any]) -> None:
    with pytest.raises(PromptError, match=r"float32 \(1, 3, 28, 28\)"):
        Session(model).look(wrong)


def test_pixels_in_any_memory_order(model: Model) -> None:
    session = Session(model)
    strided = np.asfortranarray(pixels(4))
    assert session.look(strided) is session.look(pixels(4))


def test_a_model_of_text_reads_no_pictures(shelf: Shelf) -> None:
    session = Session(Model(shelf.artifact("text")))
    with pytest.raises(PromptError, match="text only"):
        session.look(pixels())


# --- interruptions ------------------------------------------------------------------------------


class Interrupted(BaseException):
    """Not an Exception, as KeyboardInterrupt."""


@pytest.fixture
def interrupt(chunked: Model, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """Interrupt the n-th call from now of the decoder, before or after it ran."""
    whole = chunked._call

    def arm(number: int, after: bool) -> None:
        calls = 0

        def call(name: str, *arguments: Any) -> Floats:
            nonlocal calls
            calls += name in ("prefill", "prefill_all", "decode")
            if calls == number and name != "embed":
                result = whole(name, *arguments) if after else None
                monkeypatch.setattr(chunked, "_call", whole)
                raise Interrupted(result)
            return whole(name, *arguments)

        monkeypatch.setattr(chunked, "_call", call)

    return arm


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_interrupted_prefill(
    chunked: Model, interrupt: Callable[[int, bool], None], number: int, after: bool
) -> None:
    session, ids = Session(chunked), prompt(30)
    session.read(ids[:9])
    interrupt(number, after)
    with pytest.raises(Interrupted):
        session.read(ids)
    # To read on from what was whole, by step and by prompt.
    same(session.step(ids[9]), all_logits(chunked, ids)[9])
    reading = session.read(ids)
    assert reading.computed == 20
    same(reading.logits, all_logits(chunked, ids)[-1])


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_step(
    chunked: Model, interrupt: Callable[[int, bool], None], after: bool
) -> None:
    session, ids = Session(chunked), prompt(12)
    session.read(ids[:10])
    interrupt(1, after)
    with pytest.raises(Interrupted):
        session.step(99)
    same(session.step(ids[10]), all_logits(chunked, ids)[10])
    same(session.step(ids[11]), all_logits(chunked, ids)[11])


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Raise Interrupted in the main thread after some seconds, wherever it is."""

    def interrupted(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupted)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_interruptions_at_any_moment(chunked: Model, alarm: Callable[[float], None]) -> None:
    """As Ctrl-C does: between any two steps of the interpreter, and right after compiled calls."""
    ids, others = prompt(40, seed=1), prompt(40, seed=2)
    expected = all_logits(chunked, ids)
    session, random = Session(chunked), np.random.default_rng(0)
    begin = time.perf_counter()
    session.read(others)
    usual = time.perf_counter() - begin
    hits = 0
    for _ in range(60):
        try:
            alarm(float(random.uniform(1e-5, 1.5 * usual)))
            session.read(others[: random.integers(1, 30)])
            for token in others[30:]:
                session.step(token)
            alarm(0)
        except Interrupted:
            hits += 1
        count = int(random.integers(1, 40))
        same(session.read(ids[:count]).logits, expected[count - 1])
        same(session.step(ids[count]), expected[count])
    assert hits > 10
