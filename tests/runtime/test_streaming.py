"""Streaming: what is shown in parts is what the whole answer would show."""

import io
import time
from collections.abc import Sequence

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mvlm.runtime.errors import TokenizerError, UsageError
from mvlm.runtime.terminal_text import printable
from mvlm.runtime.text_stream import TextStream
from mvlm.runtime.tokenizer import Tokenizer
from tests.sentences import SENTENCES

CORPUS = [
    "The circle is red. It is left of the blue square, and the star is above the triangle.",
    "USER: How many shapes are there? ASSISTANT: There are three shapes in this picture.",
] * 2


def train() -> bytes:
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=buffer,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    return buffer.getvalue()


TOKENIZER = Tokenizer(train())


def whole(ids: Sequence[int], stop: Sequence[str]) -> tuple[str, str | None]:
    """The answer and its stop string, from the text of all ids at once."""
    text = TOKENIZER.decode(ids)
    for end in range(len(text) + 1):
        complete = [s for s in stop if text[:end].endswith(s)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)].strip(), longest
    return text.strip(), None


def streamed(ids: Sequence[int], stop: Sequence[str]) -> tuple[TextStream, list[str]]:
    stream = TextStream(TOKENIZER, stop)
    parts = [stream.push(token_id) for token_id in ids]
    return stream, [*parts, stream.finish()]


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, bos=False)


def bytes_of(text: str) -> list[int]:
    """The ids that spell a text in bytes."""
    return [byte + 3 for byte in text.encode()]


any_id = st.integers(0, TOKENIZER.vocab_size + 2)
# Few letters, so that stop strings are begun, broken off and completed.
letters = st.text("ab \n", max_size=40).map(ids_of)
some_bytes = st.binary(max_size=8).map(lambda data: [byte + 3 for byte in data])
characters = st.text("é语😀\u3000\x85 ", max_size=5).map(bytes_of)
answers = st.lists(
    st.one_of(st.lists(any_id, max_size=10), letters, some_bytes, characters), max_size=6
).map(lambda runs: [token_id for run in runs for token_id in run])
stops = st.lists(
    st.one_of(st.text("ab \n", min_size=1, max_size=5), st.text(min_size=1, max_size=3)), max_size=4
)


@settings(max_examples=1000, deadline=None)
@given(ids=answers, stop=stops)
def test_parts_make_the_whole(ids: list[int], stop: list[str]) -> None:
    stream, parts = streamed(ids, stop)
    text, stopped_by = whole(ids, stop)
    assert "".join(parts) == text
    assert stream.text == text
    assert stream.stopped_by == stopped_by


@settings(max_examples=500, deadline=None)
@given(
    before=st.text("abc", max_size=10),
    stop=st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=3),
    after=st.text("abc", max_size=5),
)
@example(before="a", stop=["aab"], after="")
@example(before="aaba", stop=["aabaaac"], after="")
def test_stop_strings_that_repeat_themselves_are_found(
    before: str, stop: list[str], after: str
) -> None:
    ids = bytes_of(before + stop[0] + after)
    stream, _ = streamed(ids, stop)
    assert (stream.text, stream.stopped_by) == whole(ids, stop)


@settings(deadline=None)
@given(ids=answers, stop=stops, more=answers)
def test_shown_text_is_never_taken_back(ids: list[int], stop: list[str], more: list[int]) -> None:
    stream = TextStream(TOKENIZER, stop)
    shown = ""
    for token_id in ids:
        shown += stream.push(token_id)
    # However the answer goes on, it begins with what was shown.
    assert whole([*ids, *more], stop)[0].startswith(shown)


@settings(deadline=None)
@given(text=st.text(max_size=30), stop=stops)
def test_token_boundaries_do_not_matter(text: str, stop: list[str]) -> None:
    in_pieces = streamed(ids_of("x" + text), stop)[0]
    in_bytes = streamed(bytes_of("x" + text.replace("▁", " ")), stop)[0]
    assert (in_pieces.text, in_pieces.stopped_by) == (in_bytes.text, in_bytes.stopped_by)


def test_text_is_shown_as_soon_as_it_is_final() -> None:
    ids = ids_of("The circle is red.")
    _, parts = streamed(ids, ["</s>"])
    assert parts[-1] == ""
    assert len([part for part in parts if part]) >= len(ids) - 5
    assert parts[0] == TOKENIZER.decode(ids[:1])


def test_characters_are_not_split() -> None:
    _, parts = streamed(bytes_of("a😀b"), [])
    assert parts == ["a", "", "", "", "😀", "b", ""]


def test_unfinished_characters_are_replaced_at_the_end() -> None:
    _, parts = streamed([*bytes_of("a"), *bytes_of("😀")[:3]], [])
    assert parts == ["a", "", "", "", "\ufffd\ufffd\ufffd"]


def test_replaced_characters_can_complete_a_stop_string() -> None:
    stream, parts = streamed([*bytes_of("ab"), bytes_of("é")[0]], ["b\ufffd"])
    assert "".join(parts) == "a"
    assert stream.stopped_by == "b\ufffd"


def test_stop_strings_cross_tokens_and_are_held_back() -> None:
    stream = TextStream(TOKENIZER, ["</s>"])
    shown = [stream.push(token_id) for token_id in bytes_of("red</s> and")]
    assert shown[:3] == ["r", "e", "d"]
    assert shown[3:] == [""] * 8
    assert stream.stopped_by == "</s>"
    assert stream.finish() == ""


def test_broken_off_stop_strings_are_shown() -> None:
    _, parts = streamed(bytes_of("a</s</s"), ["</s>"])
    assert parts == ["a", "", "", "", "</s", "", "", "</s"]


def test_the_first_complete_stop_string_counts() -> None:
    assert streamed(ids_of("xabcd"), ["abcd", "bc"])[0].text == "xa"
    stream, _ = streamed(ids_of("xabc"), ["bc", "abc", "c"])
    assert (stream.text, stream.stopped_by) == ("x", "abc")


def test_white_space_waits_for_text() -> None:
    _, parts = streamed(bytes_of(" \n a \n\n b \n"), [])
    assert [part for part in parts if part] == ["a", " \n\n b"]


def test_special_ids_have_no_text() -> None:
    special = [TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.unk_id, TOKENIZER.vocab_size]
    assert streamed([*special, *ids_of("red"), *special], [])[0].text == "red"


def test_nothing_comes_after_the_end() -> None:
    stream, _ = streamed(ids_of("red"), [])
    assert [stream.push(token_id) for token_id in ids_of("blue")] == [""] * len(ids_of("blue"))
    assert stream.finish() == ""
    assert stream.text == "red"


def test_no_ids_are_an_empty_answer() -> None:
    stream, parts = streamed([], ["a"])
    assert (stream.text, stream.stopped_by, parts) == ("", None, [""])


@pytest.mark.parametrize("unit", ["circle ", "\n", "ab", "😀"])
def test_work_for_a_token_does_not_grow(unit: str) -> None:
    def seconds(repeats: int) -> float:
        ids = bytes_of(unit * repeats)
        start = time.process_time()
        streamed(ids, ["ab" * 40 + "c", "\n" * 100 + "!", "</s>"])
        return time.process_time() - start

    repeats = 20_000 // len(unit.encode())
    # Sixteen times the tokens: a quadratic algorithm would take 256 times as long.
    assert seconds(16 * repeats) < 80 * max(seconds(repeats), 0.01)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="stop"):
        TextStream(TOKENIZER, ["a", ""])
    with pytest.raises(TokenizerError, match="found -200"):
        TextStream(TOKENIZER).push(-200)


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences_of_every_language_come_whole_out_of_single_bytes(name: str) -> None:
    """A character's bytes, and a grapheme's characters, come one by one and in several parts."""
    sentence = SENTENCES[name]
    _, parts = streamed(bytes_of(sentence), ["</s>"])
    assert "".join(map(printable, parts)) == sentence.strip()
