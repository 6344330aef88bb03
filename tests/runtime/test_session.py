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
from tests.artifacts import ArtifactCache

Floats = npt.NDArray[np.float32]

# Grouped KV heads, and 4 positions an image.
FAMILY = "linear"
CHUNK = 7
CONTEXT = 130  # of pages of 64
# The same float32 sums, cut differently: 1 row takes another kernel than many.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def model(artifact_cache: ArtifactCache) -> Model:
    """Prefills in chunks of 512."""
    return Model(artifact_cache.artifact(FAMILY))


@pytest.fixture(scope="module")
def chunked(artifact_cache: ArtifactCache) -> Model:
    """The same model, in chunks of 7, and with a context of three pages, the last one short."""
    return Model(artifact_cache.artifact(FAMILY, prefill_chunk=CHUNK, context=CONTEXT))


def prompt(length: int, seed: int = 0) -> list[int]:
    return [1, *np.random.default_rng(seed).integers(3, 384, length - 1).tolist()]


def pixels(seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((1, 3, 28, 28), np.float32)


def all_logits(model: Model, ids: list[int]) -> Floats:
    """The logits of every position, in one prefill."""
    return model.prefill(model.embed(ids), model.new_cache(), all_logits=True)


def embeddings(model: Model, ids: list[int]) -> Floats:
    found: Floats = model.device.download(model.embed(ids))
    return found


def same(left: Floats, right: Floats) -> None:
    np.testing.assert_allclose(left, right, atol=TOLERANCE)


# --- one go, chunks, single tokens --------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 6, 7, 8, 13, 14, 15, 50])
def test_compiled_chunks_agree_with_one_go(model: Model, chunked: Model, length: int) -> None:
    ids = prompt(length)
    expected = all_logits(model, ids)
    same(all_logits(chunked, ids), expected)
    # Only the last position's logits: another function.
    same(chunked.prefill(chunked.embed(ids), chunked.new_cache()), expected[-1:])


@pytest.mark.parametrize(
    "sizes",
    [(1, 19), (19, 1), (3, 5, 12), (63, 1, 1, 3), (64, 4), (65, 3), (40, 100), (127, 1, 1, 70)],
)
def test_pieces_agree_with_one_go(model: Model, sizes: tuple[int, ...]) -> None:
    """Around the ends of the cache's pages as well."""
    assert model.settings.cache.page_size == 64
    ids = prompt(sum(sizes))
    cache, whole, begin, rows = model.new_cache(), model.embed(ids), 0, []
    for size in sizes:
        part = model.device.rows(whole, begin, begin + size)
        rows.append(model.prefill(part, cache, all_logits=True))
        begin += size
        assert cache.length == begin
    same(np.concatenate(rows), all_logits(model, ids))


def test_token_by_token_agrees_with_one_go(model: Model) -> None:
    ids = prompt(70)
    cache = model.new_cache()
    rows = [model.decode(token, cache) for token in ids]
    same(np.concatenate(rows), all_logits(model, ids))


def test_embeddings_of_more_tokens_than_a_chunk(model: Model, chunked: Model) -> None:
    ids = prompt(50)
    found = embeddings(chunked, ids)
    assert found.shape == (1, 50, 256)
    np.testing.assert_array_equal(found, embeddings(model, ids))
    # Beyond what memory is planned for in either.
    long = prompt(1500)
    every = embeddings(model, long)[0, ::499]
    np.testing.assert_array_equal(every, embeddings(model, long[::499])[0])


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

    upload, download = model.device.upload, model.device.download
    features = model.vision_features(pixels())
    found = model.vision_features(moved(pixels()))
    np.testing.assert_array_equal(download(found), download(features))
    projected = model.project(upload(moved(download(features))))
    np.testing.assert_array_equal(download(projected), download(model.project(features)))
    rows = model.embed(prompt(9))
    np.testing.assert_array_equal(
        model.prefill(upload(moved(download(rows))), model.new_cache()),
        model.prefill(rows, model.new_cache()),
    )


def test_results_are_not_overwritten_by_the_next_call(model: Model) -> None:
    """Neither those on the host nor those that stay on the device."""
    rows, logits = model.embed([5]), model.decode(5, model.new_cache())
    copies = model.device.download(rows), logits.copy()
    model.embed([6])
    model.decode(6, model.new_cache())
    np.testing.assert_array_equal(model.device.download(rows), copies[0])
    np.testing.assert_array_equal(logits, copies[1])


# --- truncating ---------------------------------------------------------------------------------


def test_truncate_and_prefill_again(model: Model) -> None:
    ids = prompt(140)
    expected = all_logits(model, ids)
    cache = model.new_cache()
    model.prefill(model.embed(ids), cache)
    for length in (129, 128, 127, 65, 64, 63, 16, 1, 0):
        cache.truncate(length)
        assert cache.length == length
        same(model.prefill(model.embed(ids[length:]), cache, all_logits=True), expected[length:])


def test_random_walk_of_prefills_and_truncations(model: Model) -> None:
    random = np.random.default_rng(1)
    cache, held = model.new_cache(96), list[int]()
    for _ in range(60):
        if random.random() < 0.4:
            held = held[: random.integers(0, len(held) + 1)]
            cache.truncate(len(held))
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


def test_truncating_beyond_the_end_does_nothing(model: Model) -> None:
    cache = model.new_cache()
    model.prefill(model.embed(prompt(5)), cache)
    cache.truncate(9)
    assert cache.length == 5


# --- prefix reuse in a session ------------------------------------------------------------------


def test_a_longer_prompt_computes_its_new_positions(model: Model) -> None:
    session, ids = Session(model), prompt(30)
    assert session.prefill(ids[:12]).computed == 12
    prefill = session.prefill(ids)
    assert (prefill.positions, prefill.computed) == (30, 18)
    same(prefill.logits, all_logits(model, ids)[-1])


def test_the_same_prompt_computes_its_last_position_again(model: Model) -> None:
    """Its logits are not kept."""
    session, ids = Session(model), prompt(30)
    first = session.prefill(ids)
    second = session.prefill(ids)
    assert second.computed == 1
    same(second.logits, first.logits)


@pytest.mark.parametrize("common", [0, 1, 29, 63, 64, 65])
def test_a_prompt_with_a_common_prefix_computes_the_rest(model: Model, common: int) -> None:
    session = Session(model)
    session.prefill(prompt(80))
    ids = [*prompt(80)[:common], *np.random.default_rng(9).integers(3, 384, 12).tolist()]
    ids[common] = (prompt(81)[common] + 1) % 384
    prefill = session.prefill(ids)
    assert prefill.computed == len(ids) - common
    same(prefill.logits, all_logits(model, ids)[-1])


def test_a_shorter_prompt(model: Model) -> None:
    session, ids = Session(model), prompt(30)
    session.prefill(ids)
    prefill = session.prefill(ids[:10])
    assert prefill.computed == 1
    same(prefill.logits, all_logits(model, ids[:10])[-1])


def test_decoded_tokens_are_part_of_the_cached_prefix(model: Model) -> None:
    session, ids = Session(model), prompt(20)
    session.prefill(ids[:10])
    for token in ids[10:15]:
        logits = session.decode(token)
    same(logits, all_logits(model, ids)[14])
    prefill = session.prefill(ids)
    assert prefill.computed == 5
    same(prefill.logits, all_logits(model, ids)[-1])


def test_images_are_part_of_the_cached_prefix(model: Model) -> None:
    ids = [1, 40, IMAGE_TOKEN_ID, 50, 60, IMAGE_TOKEN_ID, 70]
    session = Session(model)
    first, second = session.encode_image(pixels(1)), session.encode_image(pixels(2))
    assert session.length(ids) == 5 + 2 * 4
    before = session.prefill(ids, [first, second])
    assert (before.positions, before.computed) == (13, 13)
    # The same images in the same places: only the end is new.
    after = session.prefill([*ids, 80], [first, second])
    assert after.computed == 1
    # Another second image: everything from its first position on.
    other = session.prefill(ids, [first, session.encode_image(pixels(3))])
    assert other.computed == 1 + 4
    # The two exchanged.
    exchanged = session.prefill(ids, [second, first])
    assert exchanged.computed == 13 - 2

    def fresh(*seeds: int) -> Floats:
        new = Session(model)
        return new.prefill(ids, [new.encode_image(pixels(seed)) for seed in seeds]).logits

    same(before.logits, fresh(1, 2))
    same(other.logits, fresh(1, 3))
    same(exchanged.logits, fresh(2, 1))


def test_an_image_is_encoded_once(model: Model) -> None:
    session = Session(model)
    first = session.encode_image(pixels(1))
    spent = session.vision_seconds
    assert spent > 0
    assert session.encode_image(pixels(1).copy()) is first
    assert session.vision_seconds == spent
    assert session.encode_image(pixels(2)) is not first


def test_the_cache_of_image_embeddings_is_bounded(model: Model) -> None:
    session = Session(model)
    first = session.encode_image(pixels(0))
    for seed in range(1, 12):
        session.encode_image(pixels(seed))
    again = session.encode_image(pixels(0))
    assert again is not first
    download = model.device.download
    np.testing.assert_array_equal(download(again.embeddings), download(first.embeddings))
    assert len(session._images) < 12


def test_a_trace_computes_all_positions_again(model: Model) -> None:
    session, ids, trace = Session(model), [1, 5, IMAGE_TOKEN_ID, 7], Trace()
    plain = session.prefill(ids, [session.encode_image(pixels(1))])
    prefill = session.prefill(ids, [session.encode_image(pixels(1), trace)], trace)
    assert prefill.computed == 7
    same(prefill.logits, plain.logits)
    shapes = {name: array.shape for name, array in trace.arrays().items()}
    assert shapes == {
        "pixel_values": (1, 3, 28, 28),
        "vision_features": (1, 4, 64),
        "projector_output": (1, 4, 256),
        "prompt_ids": (4,),
        "prefill_logits": (7, 384),
    }
    assert session.prefill([*ids, 9], [session.encode_image(pixels(1))]).computed == 1


def test_two_sessions_of_one_model_are_independent(model: Model) -> None:
    left, right = Session(model), Session(model)
    ids, others = prompt(20, seed=1), prompt(20, seed=2)
    left.prefill(ids[:10])
    right.prefill(others[:10])
    for token, other in zip(ids[10:], others[10:], strict=True):
        logits, other_logits = left.decode(token), right.decode(other)
    same(logits, all_logits(model, ids)[-1])
    same(other_logits, all_logits(model, others)[-1])


def test_clearing_drops_positions_and_keeps_image_embeddings(model: Model) -> None:
    session, ids = Session(model), prompt(9)
    session.encode_image(pixels())
    spent = session.vision_seconds
    session.prefill(ids)
    session.clear()
    assert session.cache.length == 0
    prefill = session.prefill(ids)
    assert prefill.computed == 9
    same(prefill.logits, all_logits(model, ids)[-1])
    session.encode_image(pixels())
    assert session.vision_seconds == spent


# --- the end of the context ---------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 2, 63, 64, 65, 127, 129, CONTEXT])
def test_a_context_that_is_exactly_full(chunked: Model, capacity: int) -> None:
    ids = prompt(capacity)
    session = Session(chunked, capacity)
    expected = all_logits(chunked, ids)
    prefill = session.prefill(ids)
    assert prefill.positions == session.cache.length == capacity
    same(prefill.logits, expected[-1])
    with pytest.raises(ContextError, match=f"full: expected at most {capacity} positions"):
        session.decode(5)
    # Nothing was lost by trying.
    same(session.prefill(ids).logits, expected[-1])
    if capacity > 1:
        assert session.prefill(ids[:-1]).computed == 1
        same(session.decode(ids[-1]), expected[-1])


def test_a_prompt_over_the_context_leaves_the_session_as_it_was(chunked: Model) -> None:
    session, ids = Session(chunked, 20), prompt(20)
    session.prefill(ids[:18])
    with pytest.raises(ContextError, match="expected at most 20 positions, found 21"):
        session.prefill(prompt(21))
    assert session.cache.length == 18
    prefill = session.prefill(ids)
    assert prefill.computed == 2
    same(prefill.logits, all_logits(chunked, ids)[-1])


def test_a_prefill_over_the_capacity_appends_nothing(chunked: Model) -> None:
    """Although its first chunks would fit."""
    cache = chunked.new_cache(20)
    with pytest.raises(ContextError):
        chunked.prefill(chunked.embed(prompt(21)), cache)
    assert cache.length == 0


@pytest.mark.parametrize("capacity", [0, -1, CONTEXT + 1])
def test_capacity_outside_the_context_is_refused(chunked: Model, capacity: int) -> None:
    with pytest.raises(UsageError, match=f"context: expected 1 to {CONTEXT}"):
        Session(chunked, capacity)


def test_a_whole_context_token_by_token(chunked: Model) -> None:
    session, ids = Session(chunked), prompt(CONTEXT)
    expected = all_logits(chunked, ids)
    session.prefill(ids[:1])
    for position in range(1, CONTEXT):
        same(session.decode(ids[position]), expected[position])
    with pytest.raises(ContextError):
        session.decode(5)


# --- invalid prompts ----------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[], [384], [-1], [1, 10**12], [-(2**40)]])
def test_token_ids_outside_the_vocabulary_are_refused(model: Model, ids: list[int]) -> None:
    session = Session(model)
    session.prefill(prompt(5))
    with pytest.raises(PromptError):
        session.prefill([*ids])
    with pytest.raises(PromptError):
        model.embed(ids)
    prefill = session.prefill(prompt(9))
    same(prefill.logits, all_logits(model, prompt(9))[-1])


@pytest.mark.parametrize("token", [384, -1, IMAGE_TOKEN_ID, 2**31, -(2**40)])
def test_decoding_a_token_outside_the_vocabulary_is_refused(model: Model, token: int) -> None:
    """The compiled lookup does not check: it would read memory that is not the table's."""
    session = Session(model)
    session.prefill(prompt(5))
    with pytest.raises(PromptError, match="0 to 383"):
        session.decode(token)
    same(session.decode(7), all_logits(model, [*prompt(5), 7])[-1])


@pytest.mark.parametrize("places", [0, 2])
def test_number_of_images_must_match_the_placeholders(model: Model, places: int) -> None:
    session = Session(model)
    ids = [1, *[IMAGE_TOKEN_ID] * places, 5]
    with pytest.raises(PromptError, match="1 images"):
        session.prefill(ids, [session.encode_image(pixels())])


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
        Session(model).encode_image(wrong)


def test_pixels_in_any_memory_order(model: Model) -> None:
    session = Session(model)
    strided = np.asfortranarray(pixels(4))
    assert session.encode_image(strided) is session.encode_image(pixels(4))


def test_a_text_only_model_refuses_images(artifact_cache: ArtifactCache) -> None:
    session = Session(Model(artifact_cache.artifact("text")))
    with pytest.raises(PromptError, match="text only"):
        session.encode_image(pixels())


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
    session.prefill(ids[:9])
    interrupt(number, after)
    with pytest.raises(Interrupted):
        session.prefill(ids)
    # The session goes on from the last whole call, by decode and by prefill.
    same(session.decode(ids[9]), all_logits(chunked, ids)[9])
    prefill = session.prefill(ids)
    assert prefill.computed == 20
    same(prefill.logits, all_logits(chunked, ids)[-1])


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_decode(
    chunked: Model, interrupt: Callable[[int, bool], None], after: bool
) -> None:
    session, ids = Session(chunked), prompt(12)
    session.prefill(ids[:10])
    interrupt(1, after)
    with pytest.raises(Interrupted):
        session.decode(99)
    same(session.decode(ids[10]), all_logits(chunked, ids)[10])
    same(session.decode(ids[11]), all_logits(chunked, ids)[11])


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
    session.prefill(others)
    usual = time.perf_counter() - begin
    hits = 0
    for _ in range(60):
        try:
            alarm(float(random.uniform(1e-5, 1.5 * usual)))
            session.prefill(others[: random.integers(1, 30)])
            for token in others[30:]:
                session.decode(token)
            alarm(0)
        except Interrupted:
            hits += 1
        count = int(random.integers(1, 40))
        same(session.prefill(ids[:count]).logits, expected[count - 1])
        same(session.decode(ids[count]), expected[count])
    assert hits > 10
