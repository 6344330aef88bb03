"""However a prompt gets into the KV cache, the cache then holds the same: equal to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mvlm.runtime.engine import Engine, EngineSettings, Request, Trace
from mvlm.runtime.errors import ContextError, PromptError, UsageError
from mvlm.runtime.kv_cache import Run
from mvlm.runtime.model import Model
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID
from tests.artifacts import ArtifactCache
from tests.forward import Forward, logits_of
from tests.runtime.engine.asking import (
    CONTEXT,
    FAMILY,
    IMAGE_TOKENS,
    PAGE,
    VOCABULARY,
    Floats,
    Sampled,
    alone,
    ask,
    check_pages,
    encode,
    greedy,
    pixels,
    prompt,
)

same = np.testing.assert_array_equal


# --- one go, chunks, single tokens --------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 6, 7, 8, 13, 14, 15, 50])
def test_compiled_chunks_equal_one_go(
    model: Model, chunked: Model, sampled: Sampled, length: int
) -> None:
    ids = prompt(length)
    expected = logits_of(model, ids)
    same(logits_of(chunked, ids), expected)
    same(Engine(chunked).logits(ids), expected)
    # Only the last position's logits: other functions.
    for each in (model, chunked):
        ask(Engine(each), ids)
        same(sampled.last, expected[-1])


@pytest.mark.parametrize(
    "sizes",
    [(1, 19), (19, 1), (3, 5, 12), (63, 1, 1, 3), (64, 4), (65, 3), (40, 100), (127, 1, 1, 70)],
)
def test_pieces_equal_one_go(model: Model, sizes: tuple[int, ...]) -> None:
    """Around the ends of the cache's pages as well."""
    assert model.settings.cache.page_size == PAGE
    ids = prompt(sum(sizes))
    forward, rows = Forward(model), []
    for size in sizes:
        rows.append(forward.prefill(ids[forward.length : forward.length + size]))
    same(np.concatenate(rows), logits_of(model, ids))


def test_token_by_token_equals_one_go(model: Model) -> None:
    ids = prompt(70)
    forward = Forward(model)
    same(np.stack([forward.decode(token) for token in ids]), logits_of(model, ids))


@pytest.mark.parametrize("rows", [2, 3, 15, 16])
def test_some_tokens_at_once_equal_one_go(model: Model, rows: int) -> None:
    ids, cache, found = prompt(96), model.new_cache(), []
    for begin in range(0, len(ids), rows):
        part = ids[begin : begin + rows]
        found.append(model.decode(part, cache, [Run(begin, len(part), range(cache.pages))]))
    same(np.concatenate(found), logits_of(model, ids))


def test_rows_of_several_sequences_equal_those_alone(model: Model) -> None:
    """Whose pages lie in any order, and of which one is longer than a page."""
    prompts = [prompt(length, seed) for seed, length in enumerate((1, 70, 9, 64))]
    expected = [logits_of(model, ids) for ids in prompts]
    cache, pages = model.new_cache(), [[5], [9, 2], [0], [7]]
    runs = [Run(0, len(ids) - 1, held) for ids, held in zip(prompts, pages, strict=True)]
    tokens = [token for ids in prompts for token in ids[:-1]]
    found = model.prefill(model.embed(tokens), cache, [run for run in runs if run.count])
    same(found, np.concatenate([logits[:-1] for logits in expected]))
    last = [Run(run.count, 1, run.pages) for run in runs]
    same(
        model.decode([ids[-1] for ids in prompts], cache, last),
        np.stack([logits[-1] for logits in expected]),
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads(artifact_cache: ArtifactCache, model: Model, threads: int) -> None:
    ids = [*prompt(80), IMAGE_TOKEN_ID, 9]
    other = Model(artifact_cache.artifact(FAMILY), threads)
    same(Engine(other).logits(ids, [pixels()]), Engine(model).logits(ids, [pixels()]))
    request = Request(ids, [pixels()], greedy(20))
    assert alone(other, request) == alone(model, request)


def test_embeddings_of_more_tokens_than_a_chunk(model: Model, chunked: Model) -> None:
    def embeddings(model: Model, ids: list[int]) -> Floats:
        found: Floats = model.device.download(model.embed(ids))
        return found

    ids = prompt(50)
    found = embeddings(chunked, ids)
    assert found.shape == (1, 50, 256)
    same(found, embeddings(model, ids))
    # Beyond what memory is planned for in either.
    long = prompt(1500)
    every = embeddings(model, long)[0, ::499]
    same(every, embeddings(model, long[::499])[0])


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
    same(download(found), download(features))
    projected = model.project(upload(moved(download(features))))
    same(download(projected), download(model.project(features)))
    rows, run = model.embed(prompt(9)), Run(0, 9, [0])
    same(
        model.prefill(upload(moved(download(rows))), model.new_cache(), [run]),
        model.prefill(rows, model.new_cache(), [run]),
    )


def test_results_are_not_overwritten_by_the_next_call(model: Model) -> None:
    """Neither those on the host nor those that stay on the device."""
    rows, logits = model.embed([5]), Forward(model).decode(5)
    copies = model.device.download(rows), logits.copy()
    model.embed([6])
    Forward(model).decode(6)
    same(model.device.download(rows), copies[0])
    same(logits, copies[1])


# --- positions that are computed again ----------------------------------------------------------


def test_going_on_from_an_earlier_position(model: Model) -> None:
    ids = prompt(140)
    expected = logits_of(model, ids)
    forward = Forward(model)
    forward.prefill(ids)
    for length in (129, 128, 127, 65, 64, 63, 16, 1, 0):
        forward.length = length
        same(forward.prefill(ids[length:]), expected[length:])


def test_random_walk_of_questions_and_answers(model: Model, sampled: Sampled) -> None:
    """Prompts that begin like one before, up to any position, in a cache that does not hold all."""
    engine, random = Engine(model, EngineSettings(context=96)), np.random.default_rng(1)
    held = prompt(20)
    for _ in range(60):
        held = held[: random.integers(1, len(held) + 1)]
        new = random.integers(3, VOCABULARY, random.integers(0, 30)).tolist()
        if len(held) + len(new) > 96:
            with pytest.raises(ContextError):
                ask(engine, [*held, *new])
            continue
        held = [*held, *new]
        answer = ask(engine, held)
        same(sampled.last, logits_of(model, held)[-1])
        assert answer.finish_reason == "length"
        check_pages(engine)
    engine.clear()
    assert engine.pool.free == engine.pool.size
    assert ask(engine, prompt(5)).stats.computed == 5


# --- prefixes that are not computed again -------------------------------------------------------


def test_a_longer_prompt_computes_its_new_positions(model: Model, sampled: Sampled) -> None:
    engine, ids = Engine(model), prompt(30)
    assert ask(engine, ids[:12]).stats.computed == 12
    stats = ask(engine, ids).stats
    assert (stats.prompt, stats.computed) == (30, 18)
    same(sampled.last, logits_of(model, ids)[-1])


def test_the_same_prompt_computes_its_last_position_again(model: Model, sampled: Sampled) -> None:
    """Its logits are not kept."""
    engine, ids = Engine(model), prompt(30)
    ask(engine, ids)
    first = sampled.last
    assert ask(engine, ids).stats.computed == 1
    same(sampled.last, first)


@pytest.mark.parametrize("common", [1, 29, 63, 64, 65])
def test_a_prompt_with_a_common_prefix_computes_the_rest(
    model: Model, sampled: Sampled, common: int
) -> None:
    engine = Engine(model)
    ask(engine, prompt(80))
    ids = [*prompt(80)[:common], *prompt(13, seed=9)[1:]]
    ids[common] = (prompt(80)[common] + 1) % VOCABULARY
    assert ask(engine, ids).stats.computed == len(ids) - common
    same(sampled.last, logits_of(model, ids)[-1])
    # The one before is there as well.
    assert ask(engine, prompt(80)).stats.computed == 1
    same(sampled.last, logits_of(model, prompt(80))[-1])


def test_a_prompt_with_nothing_in_common(model: Model, sampled: Sampled) -> None:
    engine, ids = Engine(model), [2, *prompt(20)]
    ask(engine, prompt(80))
    assert ask(engine, ids).stats.computed == 21
    same(sampled.last, logits_of(model, ids)[-1])


def test_a_shorter_prompt(model: Model, sampled: Sampled) -> None:
    engine, ids = Engine(model), prompt(30)
    ask(engine, ids)
    assert ask(engine, ids[:10]).stats.computed == 1
    same(sampled.last, logits_of(model, ids[:10])[-1])


def test_answers_are_part_of_the_cached_prefix(model: Model, sampled: Sampled) -> None:
    engine, ids = Engine(model), prompt(10)
    answer = ask(engine, ids, tokens=6)
    # The last token has been chosen, and not computed.
    further = [*ids, *answer.tokens, 7, 8]
    assert ask(engine, further).stats.computed == 1 + 2
    same(sampled.last, logits_of(model, further)[-1])


def test_images_are_part_of_the_cached_prefix(model: Model, sampled: Sampled) -> None:
    ids = [1, 40, IMAGE_TOKEN_ID, 50, 60, IMAGE_TOKEN_ID, 70]
    engine, first, second, third = Engine(model), pixels(1), pixels(2), pixels(3)
    assert engine.length(ids) == 5 + 2 * IMAGE_TOKENS

    def check(computed: int, ids: list[int], *images: Floats) -> None:
        stats = ask(engine, ids, *images).stats
        assert (stats.prompt, stats.computed) == (engine.length(ids), computed)
        same(sampled.last, logits_of(model, ids, pixels=images)[-1])

    check(13, ids, first, second)
    # The same images in the same places: only the end is new.
    check(1, [*ids, 80], first, second)
    # Another second image: everything from its first position on.
    check(1 + IMAGE_TOKENS, ids, first, third)
    # The two exchanged.
    check(13 - 2, ids, second, first)


def test_a_trace_computes_all_positions_again(model: Model, sampled: Sampled) -> None:
    engine, ids, trace = Engine(model), [1, 5, IMAGE_TOKEN_ID, 7], Trace()
    plain = ask(engine, ids, pixels(1), tokens=3)
    answer = ask(engine, ids, pixels(1), tokens=3, trace=trace)
    assert answer.stats.computed == 7
    assert answer.tokens == plain.tokens
    arrays = trace.arrays()
    assert {name: array.shape for name, array in arrays.items()} == {
        "pixel_values": (1, 3, 28, 28),
        "vision_features": (1, 4, 64),
        "projector_output": (1, 4, 256),
        "prompt_ids": (4,),
        "prefill_logits": (7, VOCABULARY),
        "step_logits": (3, VOCABULARY),
    }
    # The rows that tokens were chosen from are those of a prefill of all.
    whole = logits_of(model, [*ids, *answer.tokens], pixels=[pixels(1)])
    same(arrays["prefill_logits"], whole[:7])
    same(arrays["step_logits"], whole[6:9])
    assert arrays["step_logits"].argmax(-1).tolist() == answer.tokens
    plain_rows, traced_rows = sampled.rows.values()
    same(np.stack(plain_rows), np.stack(traced_rows))
    assert ask(engine, [*ids, 9], pixels(1)).stats.computed == 1


def test_a_trace_of_several_chunks(chunked: Model, model: Model) -> None:
    trace, ids = Trace(), prompt(40)
    ask(Engine(chunked), ids, trace=trace)
    assert len(trace.prefill_logits) == 6
    same(trace.arrays()["prefill_logits"], logits_of(model, ids))


def test_two_engines_of_one_model_are_independent(model: Model) -> None:
    left, right = Engine(model), Engine(model)
    requests = [Request(prompt(20, seed), params=greedy(12)) for seed in (1, 2)]
    answers = [engine.submit(each)[0] for engine, each in zip((left, right), requests, strict=True)]
    while not (left.is_idle and right.is_idle):
        left.step()
        right.step()
    for request, answer in zip(requests, answers, strict=True):
        assert answer.tokens == alone(model, request)


# --- encoded images -----------------------------------------------------------------------------


def test_an_image_is_encoded_once(model: Model) -> None:
    encoder = Engine(model).images
    first = encode(encoder, pixels(1))
    spent = encoder.seconds
    assert spent > 0
    assert encode(encoder, pixels(1).copy()) is first
    assert encoder.seconds == spent
    assert encode(encoder, pixels(2)) is not first


def test_image_seconds_are_those_of_new_images(model: Model) -> None:
    engine, ids = Engine(model), [1, IMAGE_TOKEN_ID, 5]
    assert ask(engine, ids, pixels(1)).stats.image_seconds > 0
    assert ask(engine, [*ids, 6], pixels(1)).stats.image_seconds == 0


def test_the_cache_of_image_embeddings_is_bounded(model: Model) -> None:
    """The images that were used longest ago go first."""
    size = IMAGE_TOKENS * 256 * 4
    encoder = Engine(model, EngineSettings(image_bytes=3 * size + 1)).images
    images = [encode(encoder, pixels(seed)) for seed in range(3)]
    assert encode(encoder, pixels(0)) is images[0]
    encode(encoder, pixels(3))
    known = [encoder.knows(image.digest) for image in images]
    assert known == [True, False, True]
    again = encode(encoder, pixels(1))
    assert again is not images[1]
    download = model.device.download
    same(download(again.embeddings), download(images[1].embeddings))


def test_more_images_in_a_prompt_than_are_kept(model: Model, sampled: Sampled) -> None:
    engine = Engine(model, EngineSettings(image_bytes=IMAGE_TOKENS * 256 * 4))
    images = [pixels(seed) for seed in range(3)]
    ids = [1, IMAGE_TOKEN_ID, IMAGE_TOKEN_ID, 8, IMAGE_TOKEN_ID, 9]
    ask(engine, ids, *images)
    same(sampled.last, logits_of(model, ids, pixels=images)[-1])


def test_clearing_drops_positions_and_keeps_image_embeddings(model: Model) -> None:
    engine, ids = Engine(model), [*prompt(8), IMAGE_TOKEN_ID]
    first = ask(engine, ids, pixels())
    spent = engine.images.seconds
    engine.clear()
    assert engine.pool.free == engine.pool.size
    again = ask(engine, ids, pixels())
    assert (again.stats.computed, again.tokens) == (12, first.tokens)
    assert engine.images.seconds == spent


# --- the end of the context ---------------------------------------------------------------------


@pytest.mark.parametrize("context", [1, 2, 63, 64, 65, 127, 129, CONTEXT])
def test_a_context_that_is_exactly_full(chunked: Model, sampled: Sampled, context: int) -> None:
    """Also where no page is left for a copy of the last one."""
    ids = prompt(context)
    engine = Engine(chunked, EngineSettings(context=context))
    expected = logits_of(chunked, ids)
    for _ in range(2):
        answer = ask(engine, ids, tokens=5)
        # The token behind the last position is chosen; it takes no position itself.
        assert (answer.stats.prompt, len(answer.tokens)) == (context, 1)
        assert answer.finish_reason == "length"
        same(sampled.last, expected[-1])
    # No more than its last page was computed again.
    assert answer.stats.computed == (context - 1) % PAGE + 1
    with pytest.raises(ContextError, match=f"at most {context} positions, found {context + 1}"):
        engine.submit(Request(prompt(context + 1)))
    check_pages(engine)
    if context > 1:
        answer = ask(engine, ids[:-1], tokens=5)
        assert len(answer.tokens) == 2
        same(next(reversed(sampled.rows.values()))[0], expected[-2])


def test_a_prompt_over_the_context_leaves_the_engine_as_it_was(chunked: Model) -> None:
    engine, ids = Engine(chunked, EngineSettings(context=20, capacity=2 * PAGE)), prompt(20)
    ask(engine, ids[:18])
    with pytest.raises(ContextError, match="expected at most 20 positions, found 21"):
        engine.submit(Request(prompt(21)))
    with pytest.raises(ContextError, match="expected at most 20 positions, found 21"):
        engine.read_ahead(Request([*prompt(17), IMAGE_TOKEN_ID], [pixels()]))
    assert engine.is_idle
    assert ask(engine, ids).stats.computed == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EngineSettings(context=0), f"context: expected 1 to {CONTEXT}"),
        (EngineSettings(context=-1), f"context: expected 1 to {CONTEXT}"),
        (EngineSettings(context=CONTEXT + 1), f"context: expected 1 to {CONTEXT}"),
        (EngineSettings(capacity=CONTEXT - 1), f"capacity: expected {CONTEXT} to"),
        (EngineSettings(max_running=0), "max_running: expected 1 to 16"),
        (EngineSettings(max_running=17), "max_running: expected 1 to 16"),
        (EngineSettings(prefill_rows=15), "prefill_rows: expected 16 to"),
        (EngineSettings(speculate="on"), "speculate: expected off or ngram or auto, found 'on'"),  # type: ignore[arg-type]
        (EngineSettings(image_bytes=4095), "at least 4096 bytes, which one image takes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_settings_out_of_their_range(
    chunked: Model, settings: EngineSettings, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Engine(chunked, settings)


def test_a_whole_context_token_by_token(chunked: Model, sampled: Sampled) -> None:
    answer = ask(Engine(chunked, EngineSettings(speculate="off")), [1], tokens=2 * CONTEXT)
    assert (len(answer.tokens), answer.stats.steps) == (CONTEXT, CONTEXT)
    (rows,) = sampled.rows.values()
    same(np.stack(rows), logits_of(chunked, [1, *answer.tokens[:-1]]))


# --- invalid prompts ----------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[], [VOCABULARY], [-1], [1, 10**12], [-(2**40)]])
def test_token_ids_outside_the_vocabulary_are_refused(model: Model, ids: list[int]) -> None:
    """Before they are computed in one call with those of others."""
    engine = Engine(model)
    ask(engine, prompt(5))
    with pytest.raises(PromptError):
        engine.submit(Request(ids))
    with pytest.raises(PromptError):
        engine.read_ahead(Request(ids))
    with pytest.raises(PromptError):
        model.embed(ids)
    assert ask(engine, prompt(9)).stats.computed == 4


@pytest.mark.parametrize("token", [VOCABULARY, -1, IMAGE_TOKEN_ID, 2**31, -(2**40)])
def test_decoding_a_token_outside_the_vocabulary_is_refused(model: Model, token: int) -> None:
    """The compiled lookup does not check: it would read memory that is not the table's."""
    forward = Forward(model)
    forward.prefill(prompt(5))
    with pytest.raises(PromptError, match="0 to 383"):
        forward.decode(token)
    same(forward.decode(7), logits_of(model, [*prompt(5), 7])[-1])


@pytest.mark.parametrize("places", [0, 2])
def test_number_of_images_must_match_the_placeholders(model: Model, places: int) -> None:
    engine, ids = Engine(model), [1, *[IMAGE_TOKEN_ID] * places, 5]
    with pytest.raises(PromptError, match="1 images"):
        engine.submit(Request(ids, [pixels()]))
    assert engine.is_idle


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
    engine = Engine(model)
    with pytest.raises(PromptError, match=r"float32 \(1, 3, 28, 28\)"):
        ask(engine, [1, IMAGE_TOKEN_ID], wrong)
    check_pages(engine)


def test_pixels_in_any_memory_order(model: Model) -> None:
    encoder = Engine(model).images
    strided = np.asfortranarray(pixels(4))
    assert encode(encoder, strided) is encode(encoder, pixels(4))


def test_a_text_only_model_refuses_images(artifact_cache: ArtifactCache) -> None:
    engine = Engine(Model(artifact_cache.artifact("text")))
    with pytest.raises(PromptError, match="text only"):
        ask(engine, [1, IMAGE_TOKEN_ID], pixels())
    assert len(ask(engine, [1, 5]).tokens) == 1
