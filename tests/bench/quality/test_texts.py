"""Text as ids: of SmolLM2's kind of tokenizer, for judging and for calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from mvlm.bench.quality.texts import (
    BytePairTokenizer,
    OwnTokenizerCalibration,
    cut_sequences,
    judged_sequences,
    sequences_digest,
)
from mvlm.compile.calibration_data.data import DrawSettings
from mvlm.compile.calibration_data.model_input import ModelInput
from mvlm.runtime.errors import MvlmError


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """One id for each byte, after an id that begins a sequence."""
    vocabulary = {"<s>": 0} | {
        letter: index + 1 for index, letter in enumerate(sorted(ByteLevel.alphabet()))
    }
    made = Tokenizer(BPE(vocabulary, []))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_ids_begin_a_sequence(tokenizer: Path) -> None:
    found = BytePairTokenizer(tokenizer)
    assert found.encode_prompt([]) == [0]
    ids = found.encode_prompt(["a", "ba"])
    assert len(ids) == 4 and ids[0] == 0 and ids[1] == ids[3] != ids[2]


def test_calibration_reads_with_the_real_tokenizer(tokenizer: Path) -> None:
    request = OwnTokenizerCalibration(
        draw=DrawSettings(tokens=2048, length=64), tokenizer=tokenizer
    )
    stand_in: object = None
    data = request.read(ModelInput(stand_in, context=512))  # type: ignore[arg-type]
    assert data.positions >= 2048 and not data.warnings
    assert all(sample.ids[0] == 0 and len(sample.ids) <= 64 for sample in data.samples)
    assert max(max(sample.ids) for sample in data.samples) <= 256


def test_the_first_ids_are_judged(tokenizer: Path) -> None:
    found = judged_sequences("a" * 5000, tokenizer.parent)
    assert found.shape == (8, 512) and found[0, 0] == 0 and (found[1] == found[0, 1]).all()
    assert cut_sequences([*range(7)], 2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(MvlmError, match="too short: expected 6 tokens, found 5"):
        cut_sequences([*range(5)], 2, 3)


def test_the_digest_tells_sequences_apart() -> None:
    ids = np.arange(6).reshape(2, 3)
    digests = [sequences_digest(each) for each in (ids, ids.reshape(3, 2), ids + 1)]
    assert len(set(digests)) == 3
