"""Texts of another language than the tokenizer's are warned about."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import sentencepiece

from mvlm.compile.calibration_data.data import DrawSettings, read_samples
from mvlm.compile.calibration_data.model_input import ModelInput
from mvlm.models.synthetic.tokenizer import train_llama_tokenizer
from mvlm.runtime.tokenizer import Tokenizer
from tests.compile.calibration_data.datasets import (
    ENGLISH,
    READS,
    TYPICAL,
    said,
)

GERMAN = (
    "Künstliche Intelligenz ist ein Teilgebiet der Informatik, das sich mit der Erschaffung "
    "kluger Maschinen befasst. Heute ist das Wetter schön, und wir gingen im Park spazieren. "
)
RUSSIAN = (
    "Искусственный интеллект — это область информатики, которая занимается созданием умных "
    "машин. Сегодня хорошая погода, и мы пошли гулять в парк, где увидели много цветов. "
)
CHINESE = "人工智能是计算机科学的一个分支。它试图理解智能的本质。今天天气很好。我们去公园散步。"
NOISE = base64.b64encode(Random(0).randbytes(6000)).decode()


@pytest.fixture(scope="module")
def llama_like() -> ModelInput:
    """A text model whose tokenizer has LLaMA's settings and was trained on the default text."""
    lines = iter(TYPICAL.splitlines())
    return replace(READS, tokenizer=Tokenizer(train_llama_tokenizer(lines, 4000, exactly=False)))


@pytest.mark.parametrize(
    ("text", "is_foreign"),
    [(ENGLISH, False), (GERMAN, False), (RUSSIAN, True), (CHINESE, True), (NOISE, True)],
    ids=["english", "german", "russian", "chinese", "base64"],
)
@pytest.mark.parametrize("name", ["bundled", "llama_like"])
def test_other_languages_than_the_tokenizers_are_warned_about(
    write: Callable[..., Path], llama_like: ModelInput, text: str, is_foreign: bool, name: str
) -> None:
    model = READS if name == "bundled" else llama_like
    path = write("a.txt", text * (40_000 // len(text)))
    talk = [{"conversations": said(("human", text[:300]), ("gpt", text[:300]))}] * 60
    for source in (path, write("a.json", talk)):
        data = read_samples([source], None, model, DrawSettings(4096))
        found = [w for w in data.warnings if "language of the model's tokenizer" in w]
        assert len(found) == is_foreign
        assert all("times as many tokens per character as English" in w for w in found)


def test_unknown_pieces_are_warned_about(write: Callable[..., Path]) -> None:
    model_file = Path(write("spm.txt", TYPICAL))
    sentencepiece.SentencePieceTrainer.train(
        input=str(model_file),
        model_prefix=str(model_file.with_suffix("")),
        model_type="bpe",
        vocab_size=2000,
        character_coverage=0.999,
        minloglevel=2,
    )
    model = replace(READS, tokenizer=Tokenizer(model_file.with_suffix(".model")))
    text = " ".join(CHINESE) * 80
    data = read_samples([write("a.txt", text)], None, model, DrawSettings(2048))
    assert any("% unknown tokens" in warning for warning in data.warnings)
