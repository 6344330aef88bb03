"""The text that is judged, and the data that is calibrated with: each has what the other has not.

Judged is the Lee corpus (news of the Australian Broadcasting Corporation; M. D. Lee, B. Pincombe
and M. Welsh 2005), which the package gensim carries for its tests. Calibration draws from the text
that mvlm ships, as for every model, but with SmolLM2's tokenizer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from mvlm.bench.quality.judgement import IdArray
from mvlm.bench.quality.reference_model import TOKENIZER
from mvlm.bench.quality.wheels import GENSIM, fetch_wheel, read_member
from mvlm.compile.calibration_data.model_input import ModelInput
from mvlm.compile.calibration_data.request import CalibrationRequest
from mvlm.compile.calibration_data.samples import CalibrationData
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.template import Segment

SEQUENCES, LENGTH = 8, 512

_MEMBER = "gensim/test/test_data/lee_background.cor"
_MOST_BYTES = 1_000_000


class BytePairTokenizer:
    """SmolLM2's tokenizer, as calibration asks for one; see ``PromptEncoder``.

    Args:
        file: `tokenizer.json`.
    """

    unk_id = -1  # bytes spell everything

    def __init__(self, file: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(file))

    def encode_prompt(self, segments: Iterable[Segment]) -> list[int]:
        """Ids of text, the beginning of the sequence first."""
        ids: list[int] = self._tokenizer.encode("".join(map(_text, segments))).ids
        return ids


@dataclass(frozen=True)
class OwnTokenizerCalibration(CalibrationRequest):
    """Calibration data of a checkpoint whose SentencePiece tokenizer is a stand-in.

    Attributes:
        tokenizer: The `tokenizer.json` of its real one.
    """

    tokenizer: Path = Path(TOKENIZER)

    def read(self, model: ModelInput) -> CalibrationData:
        """Draw the data, with the real tokenizer."""
        return super().read(replace(model, tokenizer=BytePairTokenizer(self.tokenizer)))


def judged_text(folder: Path) -> str:
    """Return the text that is judged, fetched if it is not there yet.

    Args:
        folder: Where wheels are kept.

    Raises:
        MvlmError: It cannot be fetched.
    """
    wheel = fetch_wheel(GENSIM, folder / "wheels")
    return read_member(wheel, _MEMBER, _MOST_BYTES).decode()


def judged_sequences(text: str, checkpoint: Path) -> IdArray:
    """Return the ids that are judged, ``(SEQUENCES, LENGTH)``: the text's first ones.

    Args:
        text: The text.
        checkpoint: With `tokenizer.json`.

    Raises:
        MvlmError: The text is too short.
    """
    ids = BytePairTokenizer(checkpoint / TOKENIZER).encode_prompt([text])
    return cut_sequences(ids, SEQUENCES, LENGTH)


def cut_sequences(ids: list[int], sequences: int, length: int) -> IdArray:
    """Cut the first ids into sequences ``(sequences, length)``.

    Raises:
        MvlmError: There are too few.
    """
    wanted = sequences * length
    if len(ids) < wanted:
        raise MvlmError("the text is too short", expected=f"{wanted:,} tokens", found=len(ids))
    return np.array(ids[:wanted], np.int64).reshape(sequences, length)


def sequences_digest(sequences: IdArray) -> str:
    """The sha256 of what is judged."""
    return hashlib.sha256(repr(sequences.tolist()).encode()).hexdigest()


def _text(segment: Segment) -> str:
    assert isinstance(segment, str), "only text is calibrated with"
    return segment
