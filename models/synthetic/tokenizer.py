"""A synthetic LLaMA tokenizer: as many pieces, the same settings, invented words.

The real one belongs to its makers and cannot be carried here. This one has its 32,000 pieces with
the same special and byte pieces in the same places, so that ids, lengths and files are as real
ones; what it makes of English is its own.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from random import Random

import sentencepiece

PIECES = 32_000
_WORDS = 30_000
_ONSETS = (*"bcdfghjklmnprstvwz", "ch", "sh", "th", "st", "tr", "pl", "gr", "br", "qu", "")
_VOWELS = (*"aeiou", "ea", "ou", "ai", "y")
_CODAS = ("", "", "n", "r", "s", "t", "l", "m", "ng", "nd", "ck", "x")


def synthetic_tokenizer(seed: int = 0) -> bytes:
    """Train one on invented words and return the bytes of `tokenizer.model`."""
    return train_llama_tokenizer(_lines(seed), PIECES)


def train_llama_tokenizer(lines: Iterator[str], pieces: int, *, exactly: bool = True) -> bytes:
    """Train a tokenizer with LLaMA's settings and special ids.

    BPE with byte fallback, a dummy space in front, no normalization, digits split; `<unk>` 0,
    `<s>` 1, `</s>` 2.

    Args:
        lines: The corpus.
        pieces: How many pieces it gets.
        exactly: Refuse a corpus that does not yield so many, instead of making fewer.

    Returns:
        The bytes of `tokenizer.model`.
    """
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=buffer,
        model_type="bpe",
        vocab_size=pieces,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        hard_vocab_limit=exactly,
        minloglevel=2,
    )
    return buffer.getvalue()


def _lines(seed: int) -> Iterator[str]:
    """Yield lines of text, the common words more often than the rare ones."""
    rng = Random(f"{seed}/words")
    words = sorted({_word(rng) for _ in range(_WORDS)}, key=lambda word: (len(word), word))
    for start in range(0, len(words), 8):
        line = " ".join(words[start : start + 8])
        yield line
        yield line.title()
    yield " ".join(map(chr, range(33, 127)))


def _word(rng: Random) -> str:
    syllables = rng.choices((1, 2, 3, 4), (1, 4, 4, 1))[0]
    return "".join(
        rng.choice(part) for _ in range(syllables) for part in (_ONSETS, _VOWELS, _CODAS)
    )
