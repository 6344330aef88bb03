"""Plain text: windows of it, from all over the file, without reading a large file as a whole.

The file is divided into blocks of equal size, which are taken in random order. A block gives its
windows one by one: the first round takes one window of each block, the next round a second one. A
file with many blocks is thus sampled evenly, a short one is used up, and no text is used twice.
Memory grows with the tokens that are drawn, not with the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from random import Random

from mvlm.compile.calibration_data.language import PieceCount
from mvlm.compile.calibration_data.model_input import PromptEncoder
from mvlm.compile.calibration_data.samples import Sample
from mvlm.compile.calibration_data.shuffle import shuffled
from mvlm.compile.calibration_data.skipped import Skipped
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID

# A token of English has four or five bytes: a block gives one or two windows.
_BYTES_PER_TOKEN = 8
# Shorter windows say more of the beginning of sequences than of text.
_MIN_WINDOW = 16
# A line that separates documents, as in the default text.
_SEPARATOR = re.compile(r"^<\|document\|>$", re.MULTILINE)
_SPACE = re.compile(r"\s")


class TextSource:
    """Windows of a plain text.

    Args:
        path: The file: checked, UTF-8.
        size: Its size in bytes.
        tokenizer: The model's.
        length: Ids of a window, the beginning of the sequence included.
        rng: Chooses among the windows.

    Attributes:
        pieces: Counts of the text that was tokenized so far.
        skipped: Nothing: all text can be used.
    """

    def __init__(
        self, path: Path, size: int, tokenizer: PromptEncoder, length: int, rng: Random
    ) -> None:
        self.path = path
        self.pieces = PieceCount()
        self.skipped = Skipped()
        self._size = size
        self._tokenizer = tokenizer
        self._length = length
        self._rng = rng

    def samples(self) -> Iterator[Sample]:
        """Yield windows in random order, until the text is used up."""
        block_bytes = self._length * _BYTES_PER_TOKEN
        waiting: list[list[Sample]] = []
        for block in shuffled(-(-self._size // block_bytes), self._rng):
            windows = self._windows(read_block(self.path, block * block_bytes, block_bytes))
            if windows:
                yield windows[0]
                waiting.append(windows[1:])
        for round_ in zip_longest(*waiting):
            yield from (window for window in round_ if window is not None)

    def _windows(self, text: str) -> list[Sample]:
        """Cut a text into windows: whole ones, then what is left if it is not too short."""
        if not text.strip():
            return []
        beginning = tuple(self._tokenizer.encode_prompt([]))
        ids = self.pieces.encode(text, self._tokenizer)
        assert IMAGE_TOKEN_ID not in ids, "text never becomes an image"
        step = self._length - len(beginning)
        windows = [(*beginning, *ids[at : at + step]) for at in range(0, len(ids), step)]
        return [Sample(window) for window in windows if len(window) >= _MIN_WINDOW]


def read_block(path: Path, start: int, length: int) -> str:
    """Read a part of a text, from the first to the last white space in it.

    The words at its ends may be cut, as may be characters, so both are left out, unless they are
    those of the file.

    Args:
        path: A file in UTF-8.
        start: The part's first byte.
        length: Bytes of the part.
    """
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(length)
        is_last = not file.read(1)
    text = data.decode("utf-8", "ignore").removeprefix("\ufeff")
    if start and (first := _SPACE.search(text)):
        text = text[first.end() :]
    if not is_last and (space := _SPACE.search(text[::-1])):
        text = text[: len(text) - space.end()]
    return _SEPARATOR.sub("", text.replace("\r\n", "\n"))
