"""Whether a text is of a language that the tokenizer was made for.

A tokenizer spells what it does not know in letters or in bytes, so such a text takes more pieces a
character than the default text, which is English. Measured, relative to the default text:

============  =================  ================  =======================
text          bundled model's    Mistral 7B's v1   trained on default text
              800 pieces         32,000 pieces     4,000 pieces
============  =================  ================  =======================
other English 0.93               0.71              0.87
German        1.07               1.14              1.44
Python code   1.23               1.04              1.28
Russian       3.04               1.32              2.42
Chinese       4.97               3.58              6.21
base64        1.62               2.91              3.01
============  =================  ================  =======================

Mistral's tokenizer, which is of LLaMA's kind and size, does have pieces for Russian. One that
cannot spell bytes makes a single unknown piece of each such word instead: its share is limited too.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvlm.compile.calibration_data.model_input import PromptEncoder

MAX_RATIO = 1.5
"""Pieces per character, relative to the default text's, above which the user is warned."""

MAX_UNKNOWN = 0.05
"""Unknown pieces among all, above which the user is warned."""

# Less text says too little of its language.
_MIN_CHARACTERS = 200


@dataclass
class PieceCount:
    """Counts the pieces of some text.

    Attributes:
        characters: Of the text.
        pieces: Of the text, without the beginning of the sequence.
        unknown: How many of the pieces stand for unknown characters.
    """

    characters: int = 0
    pieces: int = 0
    unknown: int = 0

    def encode(self, text: str, tokenizer: PromptEncoder) -> list[int]:
        """Tokenize a text and count its pieces.

        Returns:
            The ids, without the beginning of the sequence.
        """
        ids = tokenizer.encode_prompt([text])[1:]
        self.characters += len(text)
        self.pieces += len(ids)
        self.unknown += ids.count(tokenizer.unk_id)
        return ids

    def warning(self, name: str, default: PieceCount) -> str | None:
        """Return a sentence if this text's language is not the tokenizer's, or None.

        Args:
            name: The text's file.
            default: The counts of the default text.
        """
        if self.characters < _MIN_CHARACTERS or not self.pieces:
            return None
        usual = default.pieces / default.characters
        ratio = self.pieces / self.characters / usual
        unknown = self.unknown / self.pieces
        if ratio <= MAX_RATIO and unknown <= MAX_UNKNOWN:
            return None
        found = f"{ratio:.1f} times as many tokens per character as English"
        if unknown > MAX_UNKNOWN:
            found = f"{unknown:.0%} unknown tokens"
        return (
            f"{name} does not seem to be in a language of the model's tokenizer: it takes {found}. "
            "Calibrate with text such as the model will read."
        )
