"""Tokens: parity with transformers' slow LlamaTokenizer, and text that stays text."""

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import LlamaTokenizer

from mvlm.runtime.errors import TokenizerError
from mvlm.runtime.template import PLAIN, VICUNA_V1, Marker, Segment, Turn
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID, MAX_MODEL_BYTES, Detokenizer, Tokenizer

CORPUS = """
A chat between a curious user and an artificial intelligence assistant.
The assistant gives helpful, detailed, and polite answers to the user's questions.
USER: What is the colour of the circle? ASSISTANT: The circle is red. It is left of the square.
USER: How many shapes are there? ASSISTANT: There are three shapes in this picture.
Q: What is the largest animal? A: The blue whale is the largest animal of the world.
Un café, dix garçons, ein Mädchen, größer, señor.
""".strip().splitlines()

# What transformers does for `legacy=False` by way of protobuf, which the tests do not install:
# the model's normalizer_spec.add_dummy_prefix becomes false.
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


def train(**options: Any) -> bytes:
    """A model with LLaMA's settings."""
    buffer = io.BytesIO()
    settings_of_llama: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 400,
        "byte_fallback": True,
        "character_coverage": 0.99,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        "num_threads": 1,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=buffer, **(settings_of_llama | options)
    )
    return buffer.getvalue()


MODEL = train()
TOKENIZERS = {legacy: Tokenizer(MODEL, legacy=legacy) for legacy in (True, False)}
BOTH = pytest.mark.parametrize("legacy", [True, False])

Reference = Callable[[bool], LlamaTokenizer]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The tokenizer of transformers, legacy or not."""
    made = {}
    for legacy in (True, False):
        path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
        path.write_bytes(MODEL if legacy else MODEL + NO_DUMMY_PREFIX)
        made[legacy] = LlamaTokenizer(str(path), legacy=legacy, from_slow=True)
    return lambda legacy: made[legacy]


def official_ids(tokenizer: LlamaTokenizer, segments: Sequence[Segment]) -> list[int]:
    """What the official code makes of a prompt.

    The text on each side of an image gets a BOS of its own; only the first is kept.
    """
    names = {Marker.IMAGE: "<image>", Marker.EOS: "</s>"}
    text = "".join(names[s] if isinstance(s, Marker) else s for s in segments)
    first, *others = (tokenizer(part).input_ids for part in text.split("<image>"))
    ids: list[int] = list(first)
    for part in others:
        assert part[0] == tokenizer.bos_token_id
        ids += [IMAGE_TOKEN_ID, *part[1:]]
    return ids


def is_plain_text(text: str) -> bool:
    """Whether the official code takes `text` for text, as ours always does."""
    return not any(mark in text for mark in ("<s>", "</s>", "<unk>", "<image>"))


texts = st.text().filter(is_plain_text)
conversations = st.lists(
    st.builds(
        Turn,
        question=texts.filter(lambda text: bool(text.strip())),
        images=st.integers(0, 2),
        answer=texts,
    ),
    min_size=1,
    max_size=3,
)

TEXTS = [
    "",
    " ",
    "  ",
    "What is this?",
    " leading and trailing ",
    "two  spaces   and\ttab\n\nlines\r\n",
    "\n",
    "▁ is how a space is written ▁▁",
    "<0x0A> and <0x> are letters",
    "emoji 🐈👩‍👩‍👧 flag 🇩🇪",
    "语言模型 and 日本語",
    "مرحبا بالعالم",
    "e\u0301 combining a\u0308\u0323",
    "nul \0 in the middle",
    "\ufeff\u200b\u2028 invisible",
    "1234567890",
    "\U0010ffff",
]


@BOTH
@pytest.mark.parametrize("text", TEXTS)
def test_texts_equal_transformers(text: str, legacy: bool, reference: Reference) -> None:
    ids = TOKENIZERS[legacy].encode(text, bos=True)
    assert ids == reference(legacy)(text).input_ids
    assert TOKENIZERS[legacy].encode(text, bos=False) == ids[1:]


@BOTH
@pytest.mark.parametrize("text", TEXTS)
def test_decoding_gives_the_text_back(text: str, legacy: bool) -> None:
    tokenizer = TOKENIZERS[legacy]
    assert tokenizer.decode(tokenizer.encode(text, bos=True)) == text.replace("▁", " ")


@BOTH
@settings(deadline=None)
@given(conversation=conversations)
def test_prompts_equal_the_official_ones(
    conversation: list[Turn], legacy: bool, reference: Reference
) -> None:
    segments = VICUNA_V1.render(conversation)
    ids = TOKENIZERS[legacy].encode_prompt(segments)
    assert ids == official_ids(reference(legacy), segments)


parts = st.lists(st.one_of(texts, st.sampled_from(Marker)), max_size=8)


@BOTH
@settings(deadline=None)
@given(segments=parts)
@example(segments=[])
@example(segments=[Marker.EOS, Marker.EOS, " a"])
@example(segments=[Marker.IMAGE, Marker.IMAGE, "", Marker.EOS, "▁a"])
@example(segments=["", "a", " b", Marker.EOS, "", Marker.IMAGE])
@example(segments=[" ", Marker.EOS, " "])
def test_any_segments_equal_the_official_ones(
    segments: list[Segment], legacy: bool, reference: Reference
) -> None:
    # Two texts in a row must not spell a special token together.
    if not is_plain_text("".join(s for s in segments if isinstance(s, str))):
        return
    ids = TOKENIZERS[legacy].encode_prompt(segments)
    assert ids == official_ids(reference(legacy), segments)


@BOTH
@settings(deadline=None)
@given(conversation=conversations, question=st.sampled_from(["And now?", " why", "\nx"]))
def test_prompts_are_incremental(conversation: list[Turn], question: str, legacy: bool) -> None:
    tokenizer, last = TOKENIZERS[legacy], Turn(question, images=1)
    whole = tokenizer.encode_prompt(VICUNA_V1.render([*conversation, last]))
    before = tokenizer.encode_prompt(VICUNA_V1.render(conversation))
    assert whole == before + tokenizer.encode_prompt(VICUNA_V1.render_next(last), bos=False)


@BOTH
def test_an_answer_continues_its_prompt(legacy: bool) -> None:
    tokenizer = TOKENIZERS[legacy]
    open_ids = tokenizer.encode_prompt(VICUNA_V1.render([Turn("What is this?", 1)]))
    answered = tokenizer.encode_prompt(VICUNA_V1.render([Turn("What is this?", 1, "The circle.")]))
    assert answered[: len(open_ids)] == open_ids
    assert tokenizer.decode(answered[len(open_ids) :]) == "The circle."


def test_pieces_around_an_image_are_those_of_the_official_code() -> None:
    tokenizer = TOKENIZERS[True]
    ids = tokenizer.encode_prompt(VICUNA_V1.render([Turn("What?", images=1)]))
    at = ids.index(IMAGE_TOKEN_ID)
    assert tokenizer.decode(ids[:at]).endswith("questions. USER: ")
    assert tokenizer.piece(ids[at - 1]) == "▁"
    assert [tokenizer.piece(i) for i in ids[at + 1 : at + 3]] == ["▁", "<0x0A>"]
    assert tokenizer.decode(ids[-1:]) == ":"
    assert ids[0] == tokenizer.bos_id


@BOTH
@pytest.mark.parametrize(
    "text", ["</s>", "<s>", "<unk>", "a</s>b <s>\n<unk>", "</s></s>", "<</s>>", " </s> "]
)
def test_special_tokens_cannot_be_typed(text: str, legacy: bool) -> None:
    tokenizer = TOKENIZERS[legacy]
    ids = tokenizer.encode(text, bos=False)
    assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id} & set(ids)
    assert tokenizer.decode(ids) == text
    segments = VICUNA_V1.render([Turn(text, images=1, answer=text), Turn(text)])
    prompt = tokenizer.encode_prompt(segments)
    assert [i for i in prompt if i <= 2] == [tokenizer.bos_id, IMAGE_TOKEN_ID, tokenizer.eos_id]


@pytest.mark.parametrize("symbol", ["bos", "eos"])
def test_models_whose_special_tokens_can_be_typed_are_refused(symbol: str) -> None:
    model = train(**{f"{symbol}_id": -1}, user_defined_symbols=["<s>", "</s>"])
    with pytest.raises(TokenizerError, match="that text cannot spell"):
        Tokenizer(model)


def test_user_defined_symbols_are_ordinary_pieces() -> None:
    tokenizer = Tokenizer(train(user_defined_symbols=["<box>"]))
    ids = tokenizer.encode("a<box>b", bos=False)
    assert "<box>" in [tokenizer.piece(i) for i in ids]
    assert tokenizer.decode(ids) == "a<box>b"


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "unigram", "vocab_size": 330},
        {"byte_fallback": False, "vocab_size": 120},
        {"remove_extra_whitespaces": True, "normalization_rule_name": "nmt_nfkc"},
    ],
)
@BOTH
def test_other_kinds_of_models_equal_transformers(
    options: dict[str, Any], legacy: bool, tmp_path: Path
) -> None:
    model = train(**options)
    tokenizer, path = Tokenizer(model, legacy=legacy), tmp_path / "tokenizer.model"
    path.write_bytes(model if legacy else model + NO_DUMMY_PREFIX)
    other = LlamaTokenizer(str(path), legacy=legacy, from_slow=True)
    for text in TEXTS:
        segments = PLAIN.render([Turn(f"a{text} <image>{text}?", images=1, answer=text)])
        assert tokenizer.encode_prompt(segments) == official_ids(other, segments)


def test_lone_surrogates_become_replacement_characters() -> None:
    tokenizer = TOKENIZERS[True]
    assert tokenizer.decode(tokenizer.encode("a\ud800b\udc00", bos=False)) == "a\ufffdb\ufffd"
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude00", bos=False)) == "😀"


@pytest.mark.parametrize(
    ("unit", "legacy"), [("the quick brown fox ", True), ("a", False), ("语", True)]
)
def test_a_megabyte_takes_linear_time(unit: str, legacy: bool) -> None:
    text = unit * (2**20 // len(unit.encode()))
    start = time.process_time()
    ids = TOKENIZERS[legacy].encode(text, bos=False)
    assert TOKENIZERS[legacy].decode(ids) == text
    # About 3 s; a quadratic algorithm would take hours.
    assert time.process_time() - start < 60


ids_of_model = st.lists(st.integers(0, TOKENIZERS[True].vocab_size - 1), max_size=40)
# Runs of byte pieces, so that characters are completed and cut short.
byte_ids = st.lists(
    st.one_of(
        st.sampled_from("é语😀\u0301".encode()).map(lambda byte: byte + 3),
        st.integers(3, 300),
    ),
    max_size=30,
)


@BOTH
@settings(deadline=None, max_examples=300)
@given(ids=ids_of_model | byte_ids)
def test_decoding_any_ids_equals_transformers_and_sentencepiece(
    ids: list[int], legacy: bool, reference: Reference
) -> None:
    tokenizer = TOKENIZERS[legacy]
    text = tokenizer.decode(ids)
    other = reference(legacy).decode(ids, skip_special_tokens=True)
    # In legacy mode transformers drops a second space at the start.
    assert text.lstrip(" ") == other.lstrip(" ")
    model = sentencepiece.SentencePieceProcessor(model_proto=MODEL)
    assert text == model.decode([i for i in ids if i > 2])


@given(ids=ids_of_model | byte_ids)
def test_detokenizer_never_splits_a_character(ids: list[int]) -> None:
    tokenizer = TOKENIZERS[True]
    detokenizer = Detokenizer(tokenizer)
    parts = [detokenizer.push(i) for i in ids] + [detokenizer.finish()]
    assert "".join(parts) == tokenizer.decode(ids)
    for part in parts:
        part.encode()


def test_characters_are_complete_before_they_are_given() -> None:
    tokenizer = TOKENIZERS[True]
    detokenizer = Detokenizer(tokenizer)
    ids = [byte + 3 for byte in "😀".encode()]
    assert [detokenizer.push(i) for i in ids] == ["", "", "", "😀"]
    assert [detokenizer.push(i) for i in ids[:2]] == ["", ""]
    assert detokenizer.finish() == "\ufffd\ufffd"
    assert detokenizer.finish() == ""


def test_ids_past_the_vocabulary_have_no_text() -> None:
    tokenizer = TOKENIZERS[True]
    ids = tokenizer.encode("the circle", bos=True)
    added = tokenizer.vocab_size
    assert tokenizer.decode([added, *ids, added + 7, tokenizer.eos_id]) == "the circle"


def test_ids_that_do_not_exist_are_refused() -> None:
    tokenizer = TOKENIZERS[True]
    with pytest.raises(TokenizerError, match="found -200"):
        tokenizer.decode([IMAGE_TOKEN_ID])
    with pytest.raises(TokenizerError, match=f"0 to {tokenizer.vocab_size - 1}"):
        tokenizer.piece(tokenizer.vocab_size)


def test_special_ids_are_read_from_the_model() -> None:
    tokenizer = Tokenizer(train(unk_id=3, bos_id=0, eos_id=1, pad_id=2))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 3)
    assert tokenizer.encode_prompt(["a", Marker.EOS])[::2] == [0, 1]
    assert TOKENIZERS[True].vocab_size == 400


def test_files_and_bytes_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(MODEL)
    for source in (path, str(path)):
        assert Tokenizer(source).encode("a circle", bos=True) == TOKENIZERS[True].encode(
            "a circle", bos=True
        )


@BOTH
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"this is a text, not a model",
        MODEL[:100],
        MODEL[: len(MODEL) // 2],
        MODEL[:-3],
        bytes(5000),
        b"\xff" * 5000,
        b"x" * (MAX_MODEL_BYTES + 1),
    ],
    ids=["empty", "text", "start", "half", "nearly whole", "zeros", "ones", "too large"],
)
def test_damaged_models_are_refused(data: bytes, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        Tokenizer(path, legacy=legacy)
    with pytest.raises(TokenizerError):
        Tokenizer(data, legacy=legacy)


def test_pieces_that_are_not_utf8_are_refused() -> None:
    piece = "▁the".encode()
    assert MODEL.count(piece) == 1
    with pytest.raises(TokenizerError, match="damaged: expected pieces in UTF-8"):
        Tokenizer(MODEL.replace(piece, b"\xff" * len(piece)))


def test_missing_models_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.model", tmp_path):
        with pytest.raises(TokenizerError, match="there is no file"):
            Tokenizer(path)
    with pytest.raises(TokenizerError, match="there is no file"):
        Tokenizer("a\0b")
