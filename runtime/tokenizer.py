"""Tokens: between text and the ids of a SentencePiece model.

:class:`Tokenizer` gives the ids that ``transformers.LlamaTokenizer`` (the slow one, which the
official code uses) gives for the official prompts, with one difference on purpose: text is only
text. ``</s>``, ``<s>`` and ``<unk>`` in a user's question are spelled in letters and never become
the ids that end or begin a sequence.
"""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import sentencepiece

from mvlm.runtime.errors import TokenizerError
from mvlm.runtime.input_file import is_present, refuse_lfs_pointer
from mvlm.runtime.template import Marker, Segment

IMAGE_TOKEN_ID = -200
"""Stands for an image among the ids of a prompt, as in the official code. No model knows it."""

MAX_MODEL_BYTES = 32 * 2**20
"""Larger tokenizer files are refused; LLaMA's has half a megabyte."""

# How SentencePiece writes a space inside a piece.
_SPACE = "\u2581"
# The protobuf field normalizer_spec.add_dummy_prefix = false. Appended to a model it overrides
# the model's own value, because protobuf merges a message that occurs twice.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class Tokenizer:
    """A SentencePiece model with LLaMA's conventions.

    Args:
        model: A ``tokenizer.model``: its path, or its bytes.
        legacy: How text after the end of an answer begins. True, which is also the meaning of a
            ``tokenizer_config.json`` without the key: with a space of its own, as SentencePiece
            does. False: as written.

    Raises:
        TokenizerError: The file is missing, too large, damaged, or declares no usable
            beginning and end of sequence.
    """

    def __init__(self, model: str | Path | bytes, *, legacy: bool = True) -> None:
        data = model if isinstance(model, bytes) else _read(Path(model))
        name = "the tokenizer" if isinstance(model, bytes) else str(model)
        self.legacy = legacy
        self._model = _load(data if legacy else data + _NO_DUMMY_PREFIX, name)
        self._pieces = _pieces(self._model, name)
        self.vocab_size = len(self._pieces)
        self.bos_id: int = self._model.bos_id()
        self.eos_id: int = self._model.eos_id()
        self.unk_id: int = self._model.unk_id()
        self._check_special(name)
        self._unk_piece = self.piece(self.unk_id)
        self._unk_length = len(self._model.encode(self._unk_piece))

    def encode(self, text: str, *, bos: bool) -> list[int]:
        """Tokenize a text on its own.

        Args:
            text: Any text; a surrogate without its other half becomes U+FFFD.
            bos: Whether the beginning-of-sequence id comes first.

        Returns:
            Ids below :attr:`vocab_size`. Those of the end and the beginning of a sequence never
            come from `text`.
        """
        return self.encode_prompt([text], bos=bos)

    def encode_prompt(self, segments: Iterable[Segment], *, bos: bool = True) -> list[int]:
        """Tokenize a prompt as the official ``tokenizer_image_token`` does.

        The text on each side of an image is tokenized on its own. The end of an answer is one id,
        and the text after it begins as :attr:`legacy` says.

        Args:
            segments: What a chat template renders.
            bos: Whether the beginning-of-sequence id comes first; not for the later turns of a
                conversation that is already in the KV cache.

        Returns:
            Ids, with :data:`IMAGE_TOKEN_ID` for each image.
        """
        ids = [self.bos_id] if bos else []
        at_start = True
        for kind, group in groupby(segments, key=lambda s: s if isinstance(s, Marker) else None):
            if kind is None:
                text = "".join(str(segment) for segment in group)
                ids += self._encode_text(_without_lone_surrogates(text), at_start=at_start)
            else:
                marker_id = IMAGE_TOKEN_ID if kind is Marker.IMAGE else self.eos_id
                ids += [marker_id for _ in group]
                at_start = kind is Marker.IMAGE
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids.

        Special ids have no text, nor have ids past the vocabulary (tokens that training added).
        One space at the start is dropped, as SentencePiece does. Bytes that are not UTF-8 become
        U+FFFD, one for each byte. ``transformers`` agrees, but for a second space at the start,
        which its legacy mode drops too.

        Raises:
            TokenizerError: An id is negative.
        """
        detokenizer = Detokenizer(self)
        return "".join([detokenizer.push(token_id) for token_id in ids]) + detokenizer.finish()

    def piece(self, token_id: int) -> str:
        """How the model file spells an id, such as ``▁cat`` or ``<0x0A>``.

        Raises:
            TokenizerError: There is no such id.
        """
        if not 0 <= token_id < self.vocab_size:
            raise TokenizerError(
                "unknown token id", expected=f"0 to {self.vocab_size - 1}", found=token_id
            )
        return self._pieces[token_id]

    def has_piece(self, text: str) -> bool:
        """Whether the model file has a piece of exactly this spelling."""
        token_id: int = self._model.piece_to_id(_without_lone_surrogates(text))
        return self._pieces[token_id] == text

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes that an id stands for: part of a character, text, or nothing.

        Raises:
            TokenizerError: The id is negative.
        """
        if token_id >= self.vocab_size:
            return b""
        piece = self.piece(token_id)
        if self._model.is_byte(token_id):
            return bytes([int(piece[1:-1], 16)])
        if self._model.is_control(token_id) or self._model.is_unknown(token_id):
            return b""
        return piece.replace(_SPACE, " ").encode()

    def _encode_text(self, text: str, *, at_start: bool) -> list[int]:
        """Ids of a text; `at_start` if no end of an answer comes right before it."""
        if self.legacy or not text:
            return self._ids(text)
        if at_start:
            text = _SPACE + text
        if not text.startswith((_SPACE, " ")):
            return self._ids(text)
        # Some models drop a space that opens a text; behind another token it stays.
        return self._ids(self._unk_piece + text)[self._unk_length :]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._model.encode(text)
        return ids

    def _check_special(self, name: str) -> None:
        for role, token_id in (("beginning", self.bos_id), ("end", self.eos_id)):
            # A piece of another type can be spelled by a user's text.
            if token_id < 0 or not self._model.is_control(token_id):
                raise TokenizerError(
                    f"{name} has no {role} of sequence that text cannot spell",
                    expected="a piece of type CONTROL",
                    found="none" if token_id < 0 else repr(self.piece(token_id)),
                    fix="Use the tokenizer.model of the checkpoint.",
                )
        if self.unk_id < 0:
            raise TokenizerError(f"{name} has no piece for unknown characters")


class Detokenizer:
    """Turns ids into text one at a time, and never splits a UTF-8 character.

    The concatenation of what :meth:`push` and :meth:`finish` return is the text of all ids.

    Args:
        tokenizer: The model's tokenizer.
        at_start: Whether the ids begin a text; a space that they begin with is dropped then.
    """

    def __init__(self, tokenizer: Tokenizer, *, at_start: bool = True) -> None:
        self._tokenizer = tokenizer
        self._unfinished = b""
        self._at_start = at_start

    def push(self, token_id: int) -> str:
        """Take the next id and return the characters that it completes."""
        data = self._tokenizer.token_bytes(token_id)
        if self._at_start and data:
            self._at_start = False
            if self._tokenizer.piece(token_id).startswith(_SPACE):
                data = data[1:]
        text, self._unfinished = _decode_utf8(self._unfinished + data)
        return text

    def finish(self) -> str:
        """Return U+FFFD for each byte of a character that was never completed."""
        unfinished, self._unfinished = self._unfinished, b""
        return "\ufffd" * len(unfinished)


def _decode_utf8(data: bytes) -> tuple[str, bytes]:
    """Text of `data` with U+FFFD for each wrong byte, and an unfinished character's bytes."""
    text = []
    while True:
        try:
            text.append(data.decode())
            return "".join(text), b""
        except UnicodeDecodeError as error:
            text.append(data[: error.start].decode())
            if error.reason == "unexpected end of data":
                return "".join(text), data[error.start :]
            text.append("\ufffd" * (error.end - error.start))
            data = data[error.end :]


def _without_lone_surrogates(text: str) -> str:
    """Join surrogate pairs, which some JSON decoders leave apart; half a pair is U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _read(path: Path) -> bytes:
    try:
        if not is_present(path, TokenizerError):
            raise TokenizerError(
                f"there is no file {path}", expected="a SentencePiece tokenizer.model"
            )
        with path.open("rb") as file:
            data = file.read(MAX_MODEL_BYTES + 1)
    except (OSError, ValueError) as error:
        raise TokenizerError(f"cannot read {path}", found=error) from error
    refuse_lfs_pointer(path, data, TokenizerError)
    return data


def _load(data: bytes, name: str) -> sentencepiece.SentencePieceProcessor:
    if len(data) > MAX_MODEL_BYTES:
        raise TokenizerError(f"{name} is too large", expected=f"at most {MAX_MODEL_BYTES:,} bytes")
    model = sentencepiece.SentencePieceProcessor()
    try:
        # Given to the constructor, no bytes at all would pass for "load later".
        model.LoadFromSerializedProto(data)
    except Exception as error:  # RuntimeError today; the binding does not document its errors.
        raise TokenizerError(
            f"{name} is damaged, or no SentencePiece model",
            found=str(error).strip(),
            fix="Copy the checkpoint's tokenizer.model again.",
        ) from error
    return model


def _pieces(model: sentencepiece.SentencePieceProcessor, name: str) -> list[str]:
    try:
        pieces: list[str] = model.id_to_piece(list(range(model.get_piece_size())))
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{name} is damaged", expected="pieces in UTF-8") from error
    if not pieces:
        raise TokenizerError(f"{name} is empty", expected="a SentencePiece tokenizer.model")
    return pieces
