"""A conversation: what is asked, remembered, forgotten, and how answers end."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaTokenizer

from mvlm.runtime.artifact.layout import CHAT, TOKENIZER
from mvlm.runtime.chat import Answer, Chat
from mvlm.runtime.errors import ArtifactError, ContextError, PromptError, UsageError
from mvlm.runtime.kv_cache import KVCache
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.session import Session, Trace
from mvlm.runtime.template import Marker
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID
from tests.artifacts import Shelf
from tests.reference import IMAGE_TOKEN, Reference

Floats = npt.NDArray[np.float32]

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
FAMILIES = ["ldpnet", "linear"]  # with and without `legacy: false`; 4 positions a picture in both
SHORT = SamplingParams(max_tokens=12)


@pytest.fixture(scope="module")
def model(shelf: Shelf) -> Model:
    return Model(shelf.artifact("ldpnet"))


@pytest.fixture
def chat(model: Model) -> Chat:
    return Chat(model)


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
def test_prompts_of_a_conversation_are_the_official_ones(
    shelf: Shelf, tmp_path: Path, family: str
) -> None:
    artifact = shelf.artifact(family)
    chat = Chat(Model(artifact))
    turns = [("What is in the picture?", 1), ("How many are there?", 0), ("And here?", 1)]
    text = SYSTEM
    for question, images in turns:
        trace = Trace()
        shown = [pixels(chat.session.model, seed) for seed in range(images)]
        answer = chat.ask(question, shown, SHORT, trace).answer
        end = " " if text == SYSTEM else "</s>"
        text += f"{end}USER: {'<image>' * images}{chr(10) * images}{question} ASSISTANT:"
        assert list(trace.prompt_ids) == official_ids(tmp_path, artifact, text)
        text += f" {answer.text}" if answer.text else ""
    assert [turn.answer is not None for turn in chat.turns] == [True] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_the_reference(shelf: Shelf, family: str) -> None:
    """From the question to the last token, through two turns."""
    model = Model(shelf.artifact(family))
    chat, reference = Chat(model), Reference(shelf.checkpoint(family))
    picture = pixels(model)
    for question, shown in (("What is this?", [picture]), ("Are you sure?", [])):
        trace = Trace()
        answer = chat.ask(question, shown, SamplingParams(max_tokens=20), trace).answer
        tokens = reference.greedy(list(trace.prompt_ids), picture, 20)
        assert list(answer.token_ids) == tokens[: len(answer.token_ids)]
        assert len(answer.token_ids) == 20 or answer.token_ids[-1] in model.settings.eos


def test_a_turn_reads_only_what_is_new(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = Chat(model)
    first = chat.ask("What is in the picture?", [pixels(model)], SHORT).answer
    seen, read, prefill = chat.session.vision_seconds, [], model.prefill

    def counted(embeddings: Floats, cache: KVCache, *, all_logits: bool = False) -> Floats:
        read.append(embeddings.shape[1])
        return prefill(embeddings, cache, all_logits=all_logits)

    monkeypatch.setattr(model, "prefill", counted)
    history = list(chat._history)
    answer = chat.ask("How many are there?", (), SHORT).answer
    # At the least the first turn's prompt was there already.
    assert sum(read) <= answer.usage.prompt_tokens - first.usage.prompt_tokens
    assert chat.session.vision_seconds == seen
    assert answer.stats.vision_ms == 0
    # The same conversation, read at once.
    fresh = Chat(model)
    fresh._history = history
    again = fresh.ask("How many are there?", (), SHORT).answer
    assert read[-1] == again.usage.prompt_tokens
    assert again.token_ids == answer.token_ids


def test_a_picture_in_the_middle_of_a_question(chat: Chat, model: Model) -> None:
    trace = Trace()
    chat.ask("Is <image> red?", [pixels(model)], SHORT, trace).answer  # noqa: B018
    assert list(trace.prompt_ids).count(IMAGE_TOKEN_ID) == 1
    plain = Trace()
    Chat(model).ask("Is <image> red?", (), SHORT, plain).answer  # noqa: B018
    assert IMAGE_TOKEN_ID not in plain.prompt_ids


@pytest.mark.parametrize("question", ["", "  \n"])
def test_blank_questions(chat: Chat, question: str) -> None:
    with pytest.raises(PromptError):
        chat.ask(question)
    assert not chat.turns


def test_a_users_special_tokens_are_text(chat: Chat) -> None:
    trace = Trace()
    chat.ask("Say </s> and <s> twice", (), SHORT, trace).answer  # noqa: B018
    assert list(trace.prompt_ids).count(1) == 1
    assert 2 not in trace.prompt_ids


def test_plain_completion_has_no_history(model: Model) -> None:
    chat = Chat(model, template="plain")
    for _ in range(2):
        trace = Trace()
        chat.ask("There is a red", (), SHORT, trace).answer  # noqa: B018
        assert list(trace.prompt_ids) == chat.tokenizer.encode("There is a red", bos=True)


def test_an_unknown_template(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's mistake, or the artifact's."""
    with pytest.raises(UsageError, match=r"expected vicuna_v1 or plain, found 'mine'"):
        Chat(model, template="mine")
    monkeypatch.setattr(model, "settings", replace(model.settings, template="mine"))
    with pytest.raises(ArtifactError, match=r"expected vicuna_v1 or plain, found 'mine'"):
        Chat(model)


# --- streaming and the end of an answer ---------------------------------------------------------


def greedy(chat: Chat, tokens: int = 40) -> Answer:
    return chat.ask("What is in the picture?", (), SamplingParams(max_tokens=tokens)).answer


def test_nothing_is_computed_before_the_reply_is_read(chat: Chat) -> None:
    chat.ask("Hello?", (), SHORT)
    assert chat.session.cache.length == 0
    assert not chat.turns


def test_parts_add_up_to_the_answer(chat: Chat) -> None:
    reply = chat.ask("What is in the picture?", (), SamplingParams(max_tokens=40))
    parts = list(reply)
    assert len(parts) > 3
    assert "".join(parts) == reply.answer.text == reply.answer.text.strip()
    assert chat.turns[-1].answer == reply.answer.text


def test_length_is_counted_in_tokens(chat: Chat) -> None:
    answer = greedy(chat, 7)
    assert answer.finish_reason == "length"
    assert len(answer.token_ids) == answer.usage.completion_tokens == 7


@pytest.mark.parametrize("number", [0, 1, 9])
def test_an_end_of_sequence_ends_the_answer(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tokens = greedy(Chat(chat.session.model)).token_ids
    end = tokens[number]
    model = chat.session.model
    monkeypatch.setattr(model, "settings", replace(model.settings, eos=(383, end)))
    answer = greedy(chat)
    assert answer.finish_reason == "stop"
    assert answer.token_ids == tokens[: tokens.index(end) + 1]
    assert answer.text == chat.tokenizer.decode(answer.token_ids[:-1]).strip()


def test_a_stop_string_ends_the_answer_and_is_not_shown(model: Model) -> None:
    whole = greedy(Chat(model)).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    answer = (
        Chat(model)
        .ask("What is in the picture?", (), SamplingParams(max_tokens=40, stop=("never", stop)))
        .answer
    )
    assert answer.finish_reason == "stop"
    assert answer.text == whole[: whole.index(stop)].strip()
    assert answer.usage.completion_tokens < 40


def test_cancelling_ends_the_answer_and_keeps_it(chat: Chat) -> None:
    reply = chat.ask("What is in the picture?", (), SamplingParams(max_tokens=40))
    shown = next(iter(reply))
    reply.cancel()
    answer = reply.answer
    assert answer.finish_reason == "cancelled"
    assert 0 < len(answer.token_ids) < 40
    assert answer.text.startswith(shown)
    assert chat.turns[-1].answer == answer.text
    # The conversation goes on.
    assert chat.ask("And now?", (), SHORT).answer.usage.completion_tokens > 0


def test_cancelling_before_the_first_token(chat: Chat) -> None:
    reply = chat.ask("What is in the picture?", (), SHORT)
    reply.cancel()
    assert reply.answer.finish_reason == "cancelled"
    assert (reply.answer.text, reply.answer.token_ids) == ("", ())
    assert reply.answer.stats.decode_tok_s == 0


def test_an_interrupted_reply_is_not_remembered(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = greedy(Chat(chat.session.model))
    reply = chat.ask("What is in the picture?", (), SamplingParams(max_tokens=40))

    def interrupt(*_: object) -> Floats:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(chat.session.model, "decode", interrupt)
        for _ in reply:
            pass
    with pytest.raises(PromptError, match="interrupted"):
        reply.answer  # noqa: B018
    assert not chat.turns
    assert greedy(chat).token_ids == expected.token_ids


def test_asking_again_ends_the_reply_before(chat: Chat) -> None:
    """Its next token would otherwise be read into the new conversation."""
    expected = Chat(chat.session.model).ask("How many?", (), SHORT).answer
    first = chat.ask("What is in the picture?", (), SamplingParams(max_tokens=40))
    next(iter(first))
    second = chat.ask("How many?", (), SHORT)
    assert second.answer.token_ids == expected.token_ids
    assert first.answer.finish_reason == "cancelled"
    assert [turn.question for turn in chat.turns] == ["How many?"]


def test_a_reset_ends_the_reply_before(chat: Chat) -> None:
    first = chat.ask("What is in the picture?", (), SamplingParams(max_tokens=40))
    next(iter(first))
    chat.reset()
    assert first.answer.finish_reason == "cancelled"
    assert not chat.turns


def test_a_reset_begins_anew(chat: Chat) -> None:
    first = greedy(chat)
    greedy(chat)
    chat.reset()
    assert not chat.turns
    assert greedy(chat).token_ids == first.token_ids


# --- sampling -----------------------------------------------------------------------------------


def test_seeds_are_reproducible(model: Model) -> None:
    def sampled(seed: int | None) -> tuple[int, ...]:
        params = SamplingParams(temperature=1.5, seed=seed, max_tokens=24)
        return Chat(model).ask("Hello?", (), params).answer.token_ids

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)
    assert sampled(None) != sampled(None)


def test_a_repetition_penalty_sees_prompt_and_answer(model: Model) -> None:
    params = SamplingParams(repetition_penalty=100.0, max_tokens=40)
    trace = Trace()
    tokens = Chat(model).ask("Hello?", (), params, trace).answer.token_ids
    assert len(set(tokens)) == len(tokens)
    assert not set(tokens) & set(trace.prompt_ids)


def test_step_logits_are_those_that_tokens_were_chosen_from(chat: Chat, model: Model) -> None:
    trace = Trace()
    answer = chat.ask("Hello?", [pixels(model)], SHORT, trace).answer
    arrays = trace.arrays()
    assert arrays["step_logits"].shape == (len(answer.token_ids), model.settings.vocabulary)
    assert arrays["step_logits"].argmax(-1).tolist() == list(answer.token_ids)
    np.testing.assert_array_equal(arrays["step_logits"][0], arrays["prefill_logits"][-1])


# --- numbers ------------------------------------------------------------------------------------


def test_usage_and_stats(chat: Chat, model: Model) -> None:
    trace = Trace()
    two = [pixels(model, 1), pixels(model, 2)]
    answer = chat.ask("Which is larger?", two, SHORT, trace).answer
    assert model.settings.image_tokens == 4
    assert answer.usage.image_tokens == 8
    assert answer.usage.prompt_tokens == len(trace.arrays()["prefill_logits"])
    assert answer.usage.prompt_tokens == chat.session.length(list(trace.prompt_ids))
    assert answer.usage.completion_tokens == len(answer.token_ids)
    stats = answer.stats
    assert 0 < stats.vision_ms < stats.first_token_ms
    assert stats.prefill_tok_s > 0
    assert stats.decode_tok_s > 0
    assert stats.peak_rss_bytes > 10 << 20


def test_a_slow_reader_does_not_slow_the_answer(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, clock = 0.0, time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + away)
    reply = chat.ask("What?", params=SamplingParams(max_tokens=8))
    for _ in reply:
        away += 10_000
    assert away > 10_000
    assert reply.answer.stats.decode_tok_s > 8 / 10_000


def test_json_has_what_programs_rely_on(chat: Chat) -> None:
    document = greedy(chat, 3).to_json()
    assert set(document) >= {"text", "token_ids", "finish_reason", "usage", "stats"}
    assert type(document["token_ids"]) is list
    assert set(document["usage"]) == {"prompt_tokens", "image_tokens", "completion_tokens"}
    assert set(document["stats"]) >= {
        "vision_ms",
        "prefill_tok_s",
        "decode_tok_s",
        "first_token_ms",
        "peak_rss_bytes",
    }


# --- the end of the context ---------------------------------------------------------------------


def prompt_length(model: Model, question: str, pictures: int = 0) -> int:
    chat = Chat(model)
    shown = [pixels(model, seed) for seed in range(pictures)]
    return chat.ask(question, shown, SamplingParams(max_tokens=1)).answer.usage.prompt_tokens


def test_an_answer_ends_where_the_context_does(model: Model) -> None:
    room = 5
    capacity = prompt_length(model, "Hello?") + room
    answer = Chat(model, capacity=capacity).ask("Hello?", (), SamplingParams()).answer
    assert answer.finish_reason == "length"
    # The last token needs no place: nothing is read after it.
    assert len(answer.token_ids) == room
    whole = Chat(model).ask("Hello?", (), SamplingParams(max_tokens=room)).answer
    assert answer.token_ids == whole.token_ids


@pytest.mark.parametrize("missing", [0, 1, 10])
def test_a_question_that_does_not_fit_alone(model: Model, missing: int) -> None:
    length = prompt_length(model, "Hello?")
    chat = Chat(model, capacity=length - missing)
    with pytest.raises(
        ContextError, match=rf"fewer than {length - missing} tokens, found {length}"
    ):
        chat.ask("Hello?")
    assert not chat.turns


def test_a_question_with_room_for_one_token(model: Model) -> None:
    chat = Chat(model, capacity=prompt_length(model, "Hello?") + 1)
    answer = chat.ask("Hello?").answer
    assert (answer.finish_reason, len(answer.token_ids)) == ("length", 1)


def test_the_oldest_turns_are_forgotten_first(model: Model) -> None:
    chat = Chat(model, capacity=prompt_length(model, "Hello?") + 150)
    questions, forgotten = [], 0
    for number in range(12):
        questions.append(f"Question {number}?")
        reply = chat.ask(questions[-1], (), SamplingParams(max_tokens=30))
        assert reply.answer.usage.prompt_tokens < chat.session.cache.capacity
        forgotten += reply.forgotten_turns
        assert [turn.question for turn in chat.turns] == questions[forgotten:]
    assert 0 < forgotten < 12


def test_pictures_outlive_their_turns(model: Model) -> None:
    """They are what the conversation is about."""
    chat = Chat(model, capacity=prompt_length(model, "Hello?", 1) + 100)
    chat.ask("What is this?", [pixels(model)], SHORT).answer  # noqa: B018
    seen = chat.session.vision_seconds
    forgotten = 0
    while forgotten < 4:
        trace = Trace()
        reply = chat.ask("And what else is there?", (), SamplingParams(max_tokens=30))
        forgotten += reply.forgotten_turns
        assert reply.answer.usage.image_tokens == 4
    assert chat.session.vision_seconds == seen
    assert chat.turns[0].images == 1
    trace = Trace()
    answer = chat.ask("And what else is there?", (), SamplingParams(max_tokens=30), trace).answer
    session = Session(model)
    again = session.prefill(list(trace.prompt_ids), [session.encode_image(pixels(model))])
    assert int(again.logits.argmax()) == answer.token_ids[0]


def test_many_pictures_do_not_end_a_conversation(model: Model) -> None:
    """When the kept pictures alone fill the context, the oldest of them go."""
    chat = Chat(model, capacity=prompt_length(model, "And this?", 1) + 40)
    for seed in range(20):
        reply = chat.ask("And this?", [pixels(model, seed)], SHORT)
        assert reply.answer.usage.image_tokens >= 4
    assert chat.turns[-1].images >= 1


def test_images_outlive_turns_that_mention_the_placeholder(model: Model) -> None:
    """`<image>` that came without an image is text, wherever its turn ends up."""
    question = "What does <image> mean in HTML?"
    chat = Chat(model, capacity=prompt_length(model, question, 1) + 60)
    chat.ask("What is this?", [pixels(model)], SHORT).answer  # noqa: B018
    dropped = 0
    while dropped < 2:
        trace = Trace()
        reply = chat.ask(question, (), SamplingParams(max_tokens=30), trace)
        dropped += reply.forgotten_turns
        assert reply.answer.usage.image_tokens == 4
        assert list(trace.prompt_ids).count(IMAGE_TOKEN_ID) == 1
    assert chat.turns[0].question == question
    assert (chat.turns[0].images, chat.turns[0].inherited_images) == (1, 1)


def test_inherited_images_do_not_move_those_that_a_question_places(model: Model) -> None:
    placing = "Is <image> red?"
    chat = Chat(model, capacity=prompt_length(model, "Is \nthis red?", 2) + 10)
    chat.ask("What is this?", [pixels(model, 1)], SHORT).answer  # noqa: B018
    trace = Trace()
    reply = chat.ask(placing, [pixels(model, 2)], SamplingParams(max_tokens=4), trace)
    assert reply.forgotten_turns == 1
    assert reply.answer.usage.image_tokens == 8
    expected = [SYSTEM + " USER: ", Marker.IMAGE, "\nIs ", Marker.IMAGE, " red? ASSISTANT:"]
    assert list(trace.prompt_ids) == chat.tokenizer.encode_prompt(expected)
    shown = [
        session.encode_image(pixels(model, seed)) for session in [Session(model)] for seed in (1, 2)
    ]
    again = Session(model).prefill(list(trace.prompt_ids), shown)
    assert int(again.logits.argmax()) == reply.answer.token_ids[0]


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
def test_a_prompt_has_a_place_for_each_image_given_and_kept(
    model: Model, conversation: list[tuple[str, int, str]], capacity: int
) -> None:
    chat = Chat(model, capacity=capacity)
    given, blank = list[Floats](), np.zeros((1, 3, 2, 2), np.float32)
    for number, (question, images, said) in enumerate(conversation):
        new = [blank + number for _ in range(images)]
        try:
            reply = chat.ask(question, new, SamplingParams(max_tokens=4))
        except ContextError:
            continue
        given += new
        kept = [each for exchange in reply._exchanges for each in exchange.pixels]
        assert reply._ids.count(IMAGE_TOKEN_ID) == len(kept)
        # The oldest go first, and never those of the question itself.
        assert len(kept) >= images
        assert all(a is b for a, b in zip(kept, given[len(given) - len(kept) :], strict=True))
        placed = sum(
            exchange.turn.images - exchange.turn.leading_images for exchange in reply._exchanges
        )
        typed = sum(
            text.count("<image>")
            for exchange in reply._exchanges
            for text in (exchange.turn.question, exchange.turn.answer or "")
        )
        text = chat.tokenizer.decode([i for i in reply._ids if i != IMAGE_TOKEN_ID])
        assert text.count("<image>") == typed - placed
        *earlier, last = reply._exchanges
        answered = replace(last, turn=replace(last.turn, answer=said))
        chat.begin(reply)
        chat.remember(reply, [*earlier, answered])


def test_a_refused_question_changes_nothing(model: Model) -> None:
    chat = Chat(model, capacity=prompt_length(model, "Hello?") + 40)
    chat.ask("Hello?", (), SHORT).answer  # noqa: B018
    turns = chat.turns
    with pytest.raises(ContextError):
        chat.ask("Hello? " * 100)
    assert chat.turns == turns
    assert chat.ask("Hello?", (), SHORT).answer.usage.completion_tokens > 0
