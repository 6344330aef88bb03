"""A conversation: prompts, history, dropped turns, and how generation ends."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaTokenizer

from mvlm.runtime.artifact.layout import CHAT, TOKENIZER
from mvlm.runtime.chat import Chat
from mvlm.runtime.completion import Completion
from mvlm.runtime.engine import Engine, EngineSettings, Trace
from mvlm.runtime.engine import engine as engine_module
from mvlm.runtime.engine.batch import Rows
from mvlm.runtime.errors import ArtifactError, ContextError, PromptError, UsageError
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.template import Marker
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID
from tests.artifacts import ArtifactCache
from tests.reference import IMAGE_TOKEN, Reference

Floats = npt.NDArray[np.float32]

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
FAMILIES = ["ldpnet", "linear"]  # with and without `legacy: false`; 4 positions an image in both
SHORT = SamplingParams(max_tokens=12)


@pytest.fixture(scope="module")
def model(artifact_cache: ArtifactCache) -> Model:
    return Model(artifact_cache.artifact("ldpnet"))


@pytest.fixture
def chat(model: Model) -> Chat:
    return Chat(model)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Rows]:
    """What engines compute from now on, step by step."""
    found, compute = list[Rows](), engine_module.compute

    def noted(model: Model, cache: object, batch: Sequence[Rows]) -> list[Floats]:
        found.extend(batch)
        return compute(model, cache, batch)

    monkeypatch.setattr(engine_module, "compute", noted)
    return found


def chat_with(model: Model, context: int) -> Chat:
    """A conversation whose engine has a context of its own."""
    return Chat(model, settings=EngineSettings(context=context))


def pixels(model: Model, seed: int = 0) -> Floats:
    assert model.settings.image is not None
    size = model.settings.image.size
    return np.random.default_rng(seed).standard_normal((1, 3, size, size), np.float32)


# --- the prompt ---------------------------------------------------------------------------------


# What transformers does for `legacy=False` by way of protobuf, which the tests do not install:
# the model's normalizer_spec.add_dummy_prefix becomes false.
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


def official_ids(folder: Path, artifact: Path, text: str) -> list[int]:
    """The official `tokenizer_image_token`, by the slow tokenizer that the official code uses."""
    legacy = json.loads((artifact / CHAT).read_text())["legacy_tokenizer"]
    data = (artifact / TOKENIZER).read_bytes()
    path = folder / "tokenizer.model"
    path.write_bytes(data if legacy else data + NO_DUMMY_PREFIX)
    tokenizer = LlamaTokenizer(str(path), legacy=legacy, from_slow=True)
    first, *others = (tokenizer(part).input_ids for part in text.split("<image>"))
    ids = list(first)
    for part in others:
        # Each part begins with a BOS of its own.
        ids += [IMAGE_TOKEN, *part[1:]]
    return ids


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_a_conversation_equal_the_official_ones(
    artifact_cache: ArtifactCache, tmp_path: Path, family: str
) -> None:
    artifact = artifact_cache.artifact(family)
    chat = Chat(Model(artifact))
    turns = [("What is in the picture?", 1), ("How many are there?", 0), ("And here?", 1)]
    text = SYSTEM
    for question, images in turns:
        trace = Trace()
        shown = [pixels(chat.model, seed) for seed in range(images)]
        completion = chat.generate(question, shown, SHORT, trace).completion
        end = " " if text == SYSTEM else "</s>"
        text += f"{end}USER: {'<image>' * images}{chr(10) * images}{question} ASSISTANT:"
        assert list(trace.prompt_ids) == official_ids(tmp_path, artifact, text)
        text += f" {completion.text}" if completion.text else ""
    assert [turn.answer is not None for turn in chat.turns] == [True] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_generated_tokens_are_those_of_the_reference(
    artifact_cache: ArtifactCache, family: str
) -> None:
    """From the question to the last token, through two turns."""
    model = Model(artifact_cache.artifact(family))
    chat, reference = Chat(model), Reference(artifact_cache.checkpoint(family))
    image = pixels(model)
    for question, shown in (("What is this?", [image]), ("Are you sure?", [])):
        trace = Trace()
        completion = chat.generate(question, shown, SamplingParams(max_tokens=20), trace).completion
        tokens = reference.greedy(list(trace.prompt_ids), image, 20)
        assert list(completion.token_ids) == tokens[: len(completion.token_ids)]
        assert len(completion.token_ids) == 20 or completion.token_ids[-1] in model.settings.eos


def test_a_turn_prefills_only_its_new_positions(model: Model, computed: list[Rows]) -> None:
    plain = EngineSettings(speculate="off")
    chat = Chat(model, settings=plain)
    first = chat.generate("What is in the picture?", [pixels(model)], SHORT).completion
    seconds, history = chat.engine.images.seconds, list(chat._history)
    computed.clear()
    completion = chat.generate("How many are there?", (), SHORT).completion
    # The first turn's prompt, at least, was in the cache already.
    rows = prompt_rows(computed, completion)
    assert 0 < rows <= completion.usage.prompt_tokens - first.usage.prompt_tokens
    assert chat.engine.images.seconds == seconds
    assert completion.stats.vision_ms == 0
    # The same conversation in one prefill.
    fresh = Chat(model, settings=plain)
    fresh._history = history
    computed.clear()
    again = fresh.generate("How many are there?", (), SHORT).completion
    assert prompt_rows(computed, again) == again.usage.prompt_tokens
    assert again.token_ids == completion.token_ids


def prompt_rows(computed: list[Rows], completion: Completion) -> int:
    """Of what was computed for an answer without drafts, the positions of its prompt."""
    return sum(rows.total for rows in computed) - (len(completion.token_ids) - 1)


def test_an_image_in_the_middle_of_a_question(chat: Chat, model: Model) -> None:
    trace = Trace()
    chat.generate("Is <image> red?", [pixels(model)], SHORT, trace).completion  # noqa: B018
    assert list(trace.prompt_ids).count(IMAGE_TOKEN_ID) == 1
    plain = Trace()
    Chat(model).generate("Is <image> red?", (), SHORT, plain).completion  # noqa: B018
    assert IMAGE_TOKEN_ID not in plain.prompt_ids


@pytest.mark.parametrize("question", ["", "  \n"])
def test_blank_questions_are_refused(chat: Chat, question: str) -> None:
    with pytest.raises(PromptError):
        chat.generate(question)
    assert not chat.turns


def test_special_tokens_in_a_question_are_text(chat: Chat) -> None:
    trace = Trace()
    chat.generate("Say </s> and <s> twice", (), SHORT, trace).completion  # noqa: B018
    assert list(trace.prompt_ids).count(1) == 1
    assert 2 not in trace.prompt_ids


def test_plain_completion_has_no_history(model: Model) -> None:
    chat = Chat(model, template="plain")
    for _ in range(2):
        trace = Trace()
        chat.generate("There is a red", (), SHORT, trace).completion  # noqa: B018
        assert list(trace.prompt_ids) == chat.tokenizer.encode("There is a red", bos=True)


def test_an_unknown_template_is_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's mistake, or the artifact's."""
    with pytest.raises(UsageError, match=r"expected vicuna_v1 or plain, found 'mine'"):
        Chat(model, template="mine")
    monkeypatch.setattr(model, "settings", replace(model.settings, template="mine"))
    with pytest.raises(ArtifactError, match=r"expected vicuna_v1 or plain, found 'mine'"):
        Chat(model)


# --- streaming and the end of an answer ---------------------------------------------------------


def greedy(chat: Chat, tokens: int = 40) -> Completion:
    params = SamplingParams(max_tokens=tokens)
    return chat.generate("What is in the picture?", (), params).completion


def test_nothing_is_computed_before_the_generation_is_iterated(chat: Chat) -> None:
    chat.generate("Hello?", (), SHORT)
    assert chat.engine.is_idle and chat.engine.pool.free == chat.engine.pool.size
    assert not chat.turns


def test_streamed_parts_add_up_to_the_completion(chat: Chat) -> None:
    generation = chat.generate("What is in the picture?", (), SamplingParams(max_tokens=40))
    parts = list(generation)
    assert len(parts) > 3
    assert "".join(parts) == generation.completion.text == generation.completion.text.strip()
    assert chat.turns[-1].answer == generation.completion.text


def test_max_tokens_ends_with_finish_reason_length(chat: Chat) -> None:
    completion = greedy(chat, 7)
    assert completion.finish_reason == "length"
    assert len(completion.token_ids) == completion.usage.completion_tokens == 7


@pytest.mark.parametrize("number", [0, 1, 9])
def test_an_end_of_sequence_token_ends_the_generation(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tokens = greedy(Chat(chat.model)).token_ids
    end = tokens[number]
    model = chat.model
    monkeypatch.setattr(model, "settings", replace(model.settings, eos=(383, end)))
    completion = greedy(Chat(model))
    assert completion.finish_reason == "stop"
    assert completion.token_ids == tokens[: tokens.index(end) + 1]
    assert completion.text == chat.tokenizer.decode(completion.token_ids[:-1]).strip()


def test_a_stop_string_ends_the_generation_and_is_not_streamed(model: Model) -> None:
    whole = greedy(Chat(model)).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    params = SamplingParams(max_tokens=40, stop=("never", stop))
    completion = Chat(model).generate("What is in the picture?", (), params).completion
    assert completion.finish_reason == "stop"
    assert completion.text == whole[: whole.index(stop)].strip()
    assert completion.usage.completion_tokens < 40


def test_cancelling_ends_the_generation_and_keeps_its_text(chat: Chat) -> None:
    generation = chat.generate("What is in the picture?", (), SamplingParams(max_tokens=40))
    shown = next(iter(generation))
    generation.cancel()
    completion = generation.completion
    assert completion.finish_reason == "cancelled"
    assert 0 < len(completion.token_ids) < 40
    assert completion.text.startswith(shown)
    assert chat.turns[-1].answer == completion.text
    # The conversation goes on.
    assert chat.generate("And now?", (), SHORT).completion.usage.completion_tokens > 0


def test_cancelling_before_the_first_token(chat: Chat) -> None:
    generation = chat.generate("What is in the picture?", (), SHORT)
    generation.cancel()
    assert generation.completion.finish_reason == "cancelled"
    assert (generation.completion.text, generation.completion.token_ids) == ("", ())
    assert generation.completion.stats.decode_tok_s == 0


def test_an_interrupted_generation_is_not_in_the_history(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = greedy(Chat(chat.model))
    generation = chat.generate("What is in the picture?", (), SamplingParams(max_tokens=40))

    def interrupt(*_: object) -> Floats:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(chat.model, "decode", interrupt)
        for _ in generation:
            pass
    with pytest.raises(PromptError, match="interrupted"):
        generation.completion  # noqa: B018
    assert not chat.turns
    assert greedy(chat).token_ids == expected.token_ids


def test_a_new_generation_cancels_the_one_before(chat: Chat) -> None:
    """Its next token would otherwise be read into the new conversation."""
    expected = Chat(chat.model).generate("How many?", (), SHORT).completion
    first = chat.generate("What is in the picture?", (), SamplingParams(max_tokens=40))
    next(iter(first))
    second = chat.generate("How many?", (), SHORT)
    assert second.completion.token_ids == expected.token_ids
    assert first.completion.finish_reason == "cancelled"
    assert [turn.question for turn in chat.turns] == ["How many?"]


def test_a_superseded_generation_computes_nothing(chat: Chat, computed: list[Rows]) -> None:
    """Whether it had begun or not: the conversation has gone on without it."""
    first = chat.generate("What is in the picture?", [pixels(chat.model)], SHORT)
    second = chat.generate("How many?", (), SamplingParams(max_tokens=40))
    next(iter(second))
    computed.clear()
    assert first.completion.finish_reason == "cancelled"
    assert (first.completion.token_ids, first.completion.stats.vision_ms) == ((), 0)
    assert not computed
    expected = Chat(chat.model).generate("How many?", (), SamplingParams(max_tokens=40))
    assert second.completion.token_ids == expected.completion.token_ids
    assert [turn.question for turn in chat.turns] == ["How many?"]


def test_a_refused_question_does_not_cancel_the_generation_before(chat: Chat) -> None:
    first = chat.generate("How many?", (), SHORT)
    with pytest.raises(PromptError):
        chat.generate("")
    assert first.completion.finish_reason != "cancelled"


def test_a_reset_cancels_the_generation_before(chat: Chat) -> None:
    first = chat.generate("What is in the picture?", (), SamplingParams(max_tokens=40))
    next(iter(first))
    chat.reset()
    assert first.completion.finish_reason == "cancelled"
    assert not chat.turns


def test_a_reset_clears_the_history(chat: Chat) -> None:
    first = greedy(chat)
    greedy(chat)
    chat.reset()
    assert not chat.turns
    assert greedy(chat).token_ids == first.token_ids


# --- sampling -----------------------------------------------------------------------------------


def test_seeds_are_reproducible(model: Model) -> None:
    def sampled(seed: int | None) -> tuple[int, ...]:
        params = SamplingParams(temperature=1.5, seed=seed, max_tokens=24)
        return Chat(model).generate("Hello?", (), params).completion.token_ids

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)
    assert sampled(None) != sampled(None)


def test_a_repetition_penalty_sees_prompt_and_answer(model: Model) -> None:
    params = SamplingParams(repetition_penalty=100.0, max_tokens=40)
    trace = Trace()
    tokens = Chat(model).generate("Hello?", (), params, trace).completion.token_ids
    assert len(set(tokens)) == len(tokens)
    assert not set(tokens) & set(trace.prompt_ids)


def test_step_logits_are_those_that_tokens_were_sampled_from(chat: Chat, model: Model) -> None:
    trace = Trace()
    completion = chat.generate("Hello?", [pixels(model)], SHORT, trace).completion
    arrays = trace.arrays()
    assert arrays["step_logits"].shape == (len(completion.token_ids), model.settings.vocabulary)
    assert arrays["step_logits"].argmax(-1).tolist() == list(completion.token_ids)
    np.testing.assert_array_equal(arrays["step_logits"][0], arrays["prefill_logits"][-1])


# --- numbers ------------------------------------------------------------------------------------


def test_usage_and_stats(chat: Chat, model: Model) -> None:
    trace = Trace()
    two = [pixels(model, 1), pixels(model, 2)]
    completion = chat.generate("Which is larger?", two, SHORT, trace).completion
    assert model.settings.image_tokens == 4
    assert completion.usage.image_tokens == 8
    assert completion.usage.prompt_tokens == len(trace.arrays()["prefill_logits"])
    assert completion.usage.prompt_tokens == chat.engine.length(list(trace.prompt_ids))
    assert completion.usage.completion_tokens == len(completion.token_ids)
    stats = completion.stats
    assert 0 < stats.vision_ms < stats.first_token_ms
    assert stats.prefill_tok_s > 0
    assert stats.decode_tok_s > 0
    assert 0 <= stats.accepted <= stats.drafted
    assert 1 <= stats.tokens_per_step <= len(completion.token_ids)
    assert stats.peak_rss_bytes > 10 << 20


def test_decode_speed_does_not_count_the_time_of_a_slow_consumer(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, clock = 0.0, time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + away)
    generation = chat.generate("What?", params=SamplingParams(max_tokens=8))
    for _ in generation:
        away += 10_000
    assert away > 10_000
    assert generation.completion.stats.decode_tok_s > 8 / 10_000


def test_completion_as_json_has_the_documented_keys(chat: Chat) -> None:
    document = greedy(chat, 3).to_json()
    assert set(document) >= {"text", "token_ids", "finish_reason", "usage", "stats"}
    assert type(document["token_ids"]) is list
    assert set(document["usage"]) == {"prompt_tokens", "image_tokens", "completion_tokens"}
    assert set(document["stats"]) >= {
        "vision_ms",
        "prefill_tok_s",
        "decode_tok_s",
        "first_token_ms",
        "drafted",
        "accepted",
        "tokens_per_step",
        "peak_rss_bytes",
    }


# --- the end of the context ---------------------------------------------------------------------


def prompt_length(model: Model, question: str, images: int = 0) -> int:
    chat = Chat(model)
    shown = [pixels(model, seed) for seed in range(images)]
    return chat.generate(
        question, shown, SamplingParams(max_tokens=1)
    ).completion.usage.prompt_tokens


def test_generation_ends_at_the_end_of_the_context(model: Model) -> None:
    room = 5
    capacity = prompt_length(model, "Hello?") + room
    completion = chat_with(model, capacity).generate("Hello?", (), SamplingParams()).completion
    assert completion.finish_reason == "length"
    # The last token needs no position: no token is decoded after it.
    assert len(completion.token_ids) == room
    whole = Chat(model).generate("Hello?", (), SamplingParams(max_tokens=room)).completion
    assert completion.token_ids == whole.token_ids


@pytest.mark.parametrize("missing", [0, 1, 10])
def test_a_question_longer_than_the_context_is_refused(model: Model, missing: int) -> None:
    length = prompt_length(model, "Hello?")
    chat = chat_with(model, length - missing)
    with pytest.raises(
        ContextError, match=rf"fewer than {length - missing} tokens, found {length}"
    ):
        chat.generate("Hello?")
    assert not chat.turns


def test_a_context_with_room_for_one_token(model: Model) -> None:
    chat = chat_with(model, prompt_length(model, "Hello?") + 1)
    completion = chat.generate("Hello?").completion
    assert (completion.finish_reason, len(completion.token_ids)) == ("length", 1)


def test_the_oldest_turns_are_dropped_first(model: Model) -> None:
    chat = chat_with(model, prompt_length(model, "Hello?") + 150)
    questions, dropped = [], 0
    for number in range(12):
        questions.append(f"Question {number}?")
        generation = chat.generate(questions[-1], (), SamplingParams(max_tokens=30))
        assert generation.completion.usage.prompt_tokens < chat.engine.context
        dropped += generation.dropped_turns
        assert [turn.question for turn in chat.turns] == questions[dropped:]
    assert 0 < dropped < 12


def test_images_of_dropped_turns_are_kept(model: Model) -> None:
    """They are what the conversation is about."""
    chat = chat_with(model, prompt_length(model, "Hello?", 1) + 100)
    chat.generate("What is this?", [pixels(model)], SHORT).completion  # noqa: B018
    seen = chat.engine.images.seconds
    dropped = 0
    while dropped < 4:
        trace = Trace()
        generation = chat.generate("And what else is there?", (), SamplingParams(max_tokens=30))
        dropped += generation.dropped_turns
        assert generation.completion.usage.image_tokens == 4
    assert chat.engine.images.seconds == seen
    assert chat.turns[0].images == 1
    trace = Trace()
    completion = chat.generate(
        "And what else is there?", (), SamplingParams(max_tokens=30), trace
    ).completion
    again = Engine(model).logits(trace.prompt_ids, [pixels(model)])[-1]
    assert int(again.argmax()) == completion.token_ids[0]
    np.testing.assert_array_equal(trace.step_logits[0][0], again)


def test_the_oldest_kept_images_are_dropped_when_they_fill_the_context(model: Model) -> None:
    """When the kept images alone fill the context, the oldest of them go."""
    chat = chat_with(model, prompt_length(model, "And this?", 1) + 40)
    for seed in range(20):
        generation = chat.generate("And this?", [pixels(model, seed)], SHORT)
        assert generation.completion.usage.image_tokens >= 4
    assert chat.turns[-1].images >= 1


def test_images_of_dropped_turns_are_kept_beside_a_typed_placeholder(model: Model) -> None:
    """`<image>` that came without an image is text, wherever its turn ends up."""
    question = "What does <image> mean in HTML?"
    chat = chat_with(model, prompt_length(model, question, 1) + 60)
    chat.generate("What is this?", [pixels(model)], SHORT).completion  # noqa: B018
    dropped = 0
    while dropped < 2:
        trace = Trace()
        generation = chat.generate(question, (), SamplingParams(max_tokens=30), trace)
        dropped += generation.dropped_turns
        assert generation.completion.usage.image_tokens == 4
        assert list(trace.prompt_ids).count(IMAGE_TOKEN_ID) == 1
    assert chat.turns[0].question == question
    assert (chat.turns[0].images, chat.turns[0].inherited_images) == (1, 1)


def test_inherited_images_do_not_move_those_placed_by_a_question(model: Model) -> None:
    placing = "Is <image> red?"
    chat = chat_with(model, prompt_length(model, "Is \nthis red?", 2) + 10)
    chat.generate("What is this?", [pixels(model, 1)], SHORT).completion  # noqa: B018
    trace = Trace()
    generation = chat.generate(placing, [pixels(model, 2)], SamplingParams(max_tokens=4), trace)
    assert generation.dropped_turns == 1
    assert generation.completion.usage.image_tokens == 8
    expected = [SYSTEM + " USER: ", Marker.IMAGE, "\nIs ", Marker.IMAGE, " red? ASSISTANT:"]
    assert list(trace.prompt_ids) == chat.tokenizer.encode_prompt(expected)
    again = Engine(model).logits(trace.prompt_ids, [pixels(model, seed) for seed in (1, 2)])[-1]
    assert int(again.argmax()) == generation.completion.token_ids[0]


# What a user may type and a model may say; a run of words so that turns differ in length.
TYPED = st.lists(
    st.sampled_from(
        ["<image>", "</s>", "USER:", "ASSISTANT:", "<ima", "ge>", "Is it?", "\n", "é "]
    ),
    max_size=12,
).map(" ".join)


@st.composite
def asked(draw: st.DrawFn) -> tuple[str, int, str]:
    """A question, how many images are given with it, and what the model says."""
    question, images = "Well? " + draw(TYPED), draw(st.integers(0, 3))
    if images and question.count("<image>") not in (0, images):
        question = question.replace("<image>", "it")
    return question, images, draw(TYPED)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(asked(), min_size=1, max_size=8), st.integers(120, 300))
def test_a_prompt_has_a_placeholder_for_each_given_and_kept_image(
    model: Model, conversation: list[tuple[str, int, str]], capacity: int
) -> None:
    chat = chat_with(model, capacity)
    given, blank = list[Floats](), np.zeros((1, 3, 2, 2), np.float32)
    for number, (question, images, said) in enumerate(conversation):
        new = [blank + number for _ in range(images)]
        try:
            generation = chat.generate(question, new, SamplingParams(max_tokens=4))
        except ContextError:
            continue
        given += new
        kept, ids = generation._request.images, generation._request.ids
        assert ids.count(IMAGE_TOKEN_ID) == len(kept)
        # The oldest go first, and never those of the question itself.
        assert len(kept) >= images
        assert all(a is b for a, b in zip(kept, given[len(given) - len(kept) :], strict=True))
        generation._finished(said)
        *earlier, last = chat.turns
        assert (last.question, last.answer) == (question, said)
        turns = [*earlier, replace(last, answer=None)]
        placed = sum(turn.images - turn.leading_images for turn in turns)
        typed = sum(
            text.count("<image>") for turn in turns for text in (turn.question, turn.answer or "")
        )
        text = chat.tokenizer.decode([i for i in ids if i != IMAGE_TOKEN_ID])
        assert text.count("<image>") == typed - placed


def test_a_refused_question_changes_nothing(model: Model) -> None:
    chat = chat_with(model, prompt_length(model, "Hello?") + 40)
    chat.generate("Hello?", (), SHORT).completion  # noqa: B018
    turns = chat.turns
    with pytest.raises(ContextError):
        chat.generate("Hello? " * 100)
    assert chat.turns == turns
    assert chat.generate("Hello?", (), SHORT).completion.usage.completion_tokens > 0


# --- taking back, asking again, the system message ------------------------------------------------


def test_undo_takes_back_the_last_turn(chat: Chat, model: Model) -> None:
    first = chat.generate("One?", [pixels(model)], SHORT).completion
    _ = chat.generate("Two?", params=SHORT).completion
    assert chat.undo().question == "Two?"
    assert [turn.answer for turn in chat.turns] == [first.text]
    _ = chat.generate("Three?", params=SHORT).completion
    other = Chat(model)
    for question, shown in (("One?", [pixels(model)]), ("Three?", [])):
        _ = other.generate(question, shown, SHORT).completion
    assert chat.turns == other.turns
    assert [chat.undo().question for _ in chat.turns] == ["Three?", "One?"]
    with pytest.raises(PromptError, match="there is no turn yet"):
        chat.undo()


def test_undo_brings_dropped_turns_back(model: Model) -> None:
    chat = chat_with(model, 160)
    _ = chat.generate("What is this?", [pixels(model)], SHORT).completion
    before = chat.turns
    generation = chat.generate("word " * 12, params=SHORT)
    _ = generation.completion
    assert generation.dropped_turns == 1 and len(chat.turns) == 1
    assert len(chat.images[0]) == 0 and chat.turns[0].inherited_images == 1
    chat.undo()
    assert chat.turns == before
    assert len(chat.images[0]) == 1


def test_retry_asks_the_last_question_again(chat: Chat, model: Model, computed: list[Rows]) -> None:
    _ = chat.generate("One?", params=SHORT).completion
    first = chat.generate("Two?", [pixels(model)], SHORT).completion
    computed.clear()
    again = chat.retry(SHORT).completion
    assert again.token_ids == first.token_ids
    # The prompt is in the prefix cache, but for the position whose logits are wanted.
    assert computed[0].count == 1
    other = chat.retry(replace(SHORT, temperature=5.0, seed=1)).completion
    assert other.token_ids != first.token_ids
    assert [turn.question for turn in chat.turns] == ["One?", "Two?"]
    assert chat.turns[-1].answer == other.text
    with pytest.raises(PromptError, match="there is no turn yet"):
        Chat(model).retry()


def test_a_turn_stays_until_its_place_is_taken(chat: Chat) -> None:
    first = chat.generate("One?", params=SHORT).completion
    with pytest.raises(ContextError):
        chat.generate("word " * 5000, params=SHORT, replace_last=True)
    chat.generate("Two?", params=SHORT, replace_last=True)  # is never iterated
    assert [turn.answer for turn in chat.turns] == [first.text]
    _ = chat.generate("Two?", params=SHORT, replace_last=True).completion
    assert [turn.question for turn in chat.turns] == ["Two?"]
    chat.undo()
    assert chat.turns == ()


def test_system_message_opens_the_prompt(chat: Chat, model: Model) -> None:
    plain = chat.generate("One?", params=SHORT).completion
    assert chat.system is None
    chat.set_system("Be brief.")
    assert chat.system == "Be brief."
    told = chat.retry(SHORT).completion
    assert told.usage.prompt_tokens < plain.usage.prompt_tokens
    chat.set_system(None)
    assert chat.retry(SHORT).completion.token_ids == plain.token_ids
    with pytest.raises(PromptError, match="plain has no system message"):
        Chat(model, "plain").set_system("Be brief.")


def test_undo_with_a_template_without_turns(model: Model) -> None:
    chat = Chat(model, "plain")
    for question in ("One", "Two"):
        _ = chat.generate(question, params=SHORT).completion
    assert [turn.question for turn in chat.turns] == ["Two"]
    _ = chat.retry(SHORT).completion
    chat.undo()
    assert chat.turns == ()
