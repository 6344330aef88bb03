"""The model's tokens, as llguidance reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mvlm.runtime.errors import MvlmError
from mvlm.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

# Is tokenized apart from what follows it, in every vocabulary of bytes.
_BEFORE = "\n"


class _Vocabulary:
    """What llguidance asks of a tokenizer, by its names."""

    def __init__(self, tokenizer: Tokenizer, size: int, eos: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = eos[0]
        self.bos_token_id = tokenizer.bos_id
        # Tokens past the tokenizer's, which training may have added, have no text.
        self.tokens = [tokenizer.token_bytes(token) for token in range(size)]
        self.special_token_ids = sorted({tokenizer.bos_id, tokenizer.unk_id, *eos})
        for token in self.special_token_ids:
            self.tokens[token] = b"<special>"
        self._before = tokenizer.encode(_BEFORE, bos=False)
        self._ids = {text: token for token, text in enumerate(self.tokens) if text}

    def __call__(self, text: str | bytes) -> list[int]:
        """Return the ids of a text that goes on from another one.

        SentencePiece would put a space before a text on its own.
        """
        text = text if isinstance(text, str) else text.decode("utf-8", "replace")
        ids = self._tokenizer.encode(_BEFORE + text, bos=False)[len(self._before) :]
        found = b"".join(self._tokenizer.token_bytes(token) for token in ids)
        # A vocabulary that changes texts, as by NFKC, can spell this one by single bytes at best.
        return ids if found == text.encode() else self._by_bytes(text.encode())

    def _by_bytes(self, data: bytes) -> list[int]:
        single = [self._ids.get(bytes([byte])) for byte in data]
        return [token for token in single if token is not None]


def read_vocabulary(tokenizer: Tokenizer, size: int, eos: Sequence[int]) -> LLTokenizer:
    """Return the tokens of a model; it takes a tenth of a second.

    Args:
        tokenizer: The model's.
        size: Tokens that the model has.
        eos: Those that end an answer; at least one.

    Raises:
        MvlmError: The package llguidance is not installed.
    """
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ModuleNotFoundError:
        raise MvlmError(
            "answers of a given form need llguidance",
            fix="Install it: pip install 'mvlm[structured]'.",
        ) from None
    wrapper = TokenizerWrapper(_Vocabulary(tokenizer, size, eos))
    return LLTokenizer(wrapper, eos_token=list(eos))
