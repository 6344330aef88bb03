"""Chat templates: the official prompt text, images, and incremental rendering."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvlm.runtime.errors import PromptError
from mvlm.runtime.template import PLAIN, TEMPLATES, VICUNA_V1, Marker, Segment, Turn

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def spelled(segments: Sequence[Segment]) -> str:
    """The prompt as the official code writes it, where markers are text."""
    names = {Marker.IMAGE: "<image>", Marker.EOS: "</s>"}
    return "".join(names[s] if isinstance(s, Marker) else s for s in segments)


def official_vicuna(turns: Sequence[Turn]) -> str:
    """The official conversation of style TWO: after the system text and after each message."""
    text = SYSTEM + " "
    for turn in turns:
        text += "USER: " + "<image>\n" * turn.images + turn.question + " "
        text += "ASSISTANT:" if turn.answer is None else f"ASSISTANT: {turn.answer}</s>"
    return text


def test_one_image_and_a_question() -> None:
    segments = VICUNA_V1.render([Turn("What is this?", images=1)])
    assert segments == (f"{SYSTEM} USER: ", Marker.IMAGE, "\nWhat is this? ASSISTANT:")


def test_text_alone_has_no_image_and_no_line_break() -> None:
    assert VICUNA_V1.render([Turn("Hello")]) == (f"{SYSTEM} USER: Hello ASSISTANT:",)


def test_conversations_equal_the_official_text() -> None:
    turns = [
        Turn("What is this?", images=1, answer="A cat."),
        Turn("And these?", images=2, answer="Two dogs."),
        Turn("Thanks"),
    ]
    assert spelled(VICUNA_V1.render(turns)) == official_vicuna(turns)


def test_answers_are_stripped_and_ended() -> None:
    turns = [Turn("Hi", answer=" \n Hello. \n"), Turn("Bye")]
    first, end, second = VICUNA_V1.render(turns)
    assert first == f"{SYSTEM} USER: Hi ASSISTANT: Hello."
    assert end is Marker.EOS
    assert second == "USER: Bye ASSISTANT:"


def test_an_empty_answer_still_ends() -> None:
    first, end, _ = VICUNA_V1.render([Turn("Hi", answer=" "), Turn("Bye")])
    assert first == f"{SYSTEM} USER: Hi ASSISTANT:"
    assert end is Marker.EOS


def test_a_complete_conversation_ends_with_its_answer() -> None:
    segments = VICUNA_V1.render([Turn("Hi", answer="Hello.")])
    assert segments == (f"{SYSTEM} USER: Hi ASSISTANT: Hello.",)


turns = st.builds(
    Turn,
    question=st.text(min_size=1).filter(lambda text: text.strip() and "<image>" not in text),
    images=st.integers(0, 3),
    answer=st.text(),
)


@given(st.lists(turns, min_size=1, max_size=4), turns)
def test_rendering_is_incremental(earlier: list[Turn], last: Turn) -> None:
    whole = VICUNA_V1.render([*earlier, last])
    assert whole == VICUNA_V1.render(earlier) + VICUNA_V1.render_next(last)


@given(st.lists(turns, min_size=1, max_size=4))
def test_texts_do_not_follow_one_another_and_are_not_empty(conversation: list[Turn]) -> None:
    segments = VICUNA_V1.render(conversation)
    assert "" not in segments
    pairs = itertools.pairwise(segments)
    assert not any(isinstance(a, str) and isinstance(b, str) for a, b in pairs)


def test_placeholders_mark_where_images_go() -> None:
    segments = PLAIN.render([Turn("Is <image> like <image>?", images=2)])
    assert segments == ("Is ", Marker.IMAGE, " like ", Marker.IMAGE, "?")
    written_out = VICUNA_V1.render([Turn("<image>\nWhat is this?", images=1)])
    assert written_out == VICUNA_V1.render([Turn("What is this?", images=1)])


def test_placeholder_without_an_image_is_text() -> None:
    assert PLAIN.render([Turn("What does <image> mean?")]) == ("What does <image> mean?",)


def test_markers_cannot_be_typed() -> None:
    segments = VICUNA_V1.render(
        [Turn("Say </s> <s> <unk> <image>", answer="</s>"), Turn("<image>")]
    )
    assert [s for s in segments if isinstance(s, Marker)] == [Marker.EOS]


@pytest.mark.parametrize(
    ("question", "images"), [("<image> and <image>", 1), ("<image>?", 2), ("<image>" * 4 + "?", 3)]
)
def test_wrong_number_of_placeholders_is_refused(question: str, images: int) -> None:
    with pytest.raises(PromptError, match=rf"found {images} image"):
        Turn(question, images=images)


def test_inherited_images_come_first_and_leave_the_question_alone() -> None:
    """A dropped turn's images make no place of an `<image>` that was typed as text."""
    text = Turn("What does <image> mean?", images=1, inherited_images=1)
    (_, image, end) = VICUNA_V1.render([text])
    assert (image, end) == (Marker.IMAGE, "\nWhat does <image> mean? ASSISTANT:")
    placed = Turn("Is <image> red?", images=3, inherited_images=2)
    assert PLAIN.render([placed]) == (Marker.IMAGE, Marker.IMAGE, "Is ", Marker.IMAGE, " red?")
    leading = Turn("Is it red?", images=2, inherited_images=1)
    assert VICUNA_V1.render([leading]) == VICUNA_V1.render([Turn("Is it red?", images=2)])


@pytest.mark.parametrize("inherited", [-1, 2])
def test_wrong_number_of_inherited_images_is_refused(inherited: int) -> None:
    with pytest.raises(PromptError, match=f"expected 0 to 1.*found {inherited}"):
        Turn("Hi", images=1, inherited_images=inherited)


def test_later_changes_of_a_turn_keep_its_images_where_they_are() -> None:
    asked = Turn("Is <image> red?", images=1)
    answered = replace(asked, answer="<image>")
    assert answered.parts == asked.parts == ("Is ", Marker.IMAGE, " red?")
    segments = VICUNA_V1.render([answered, Turn("Why did you say <image>?")])
    assert segments.count(Marker.IMAGE) == 1
    assert "ASSISTANT: <image>" in segments[2]


@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize("question", ["", " ", "\n\t ", "\u3000"])
def test_empty_prompts_are_refused(question: str, images: int) -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        Turn(question, images=images)


def test_an_image_alone_is_no_question() -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        Turn(" <image>\n", images=1)


def test_negative_number_of_images_is_refused() -> None:
    with pytest.raises(PromptError, match="found -1"):
        Turn("Hi", images=-1)


def test_conversations_must_be_whole() -> None:
    with pytest.raises(PromptError, match="at least one turn"):
        VICUNA_V1.render([])
    with pytest.raises(PromptError, match="no answer"):
        VICUNA_V1.render([Turn("Hi"), Turn("Hello?")])


def test_plain_is_the_prompt_as_it_is() -> None:
    question = "Q: What is the largest animal?\nA:"
    assert PLAIN.render([Turn(question)]) == (question,)
    assert PLAIN.render([Turn(question, images=2)]) == (Marker.IMAGE, Marker.IMAGE, question)
    assert PLAIN.render([Turn("1, 2,", answer=" 3")]) == ("1, 2, 3",)


def test_plain_holds_no_conversation() -> None:
    assert not PLAIN.has_turns
    assert VICUNA_V1.has_turns
    with pytest.raises(PromptError, match="no conversation"):
        PLAIN.render([Turn("a", answer="b"), Turn("c")])


def test_templates_are_found_by_name() -> None:
    assert TEMPLATES == {"vicuna_v1": VICUNA_V1, "plain": PLAIN}
