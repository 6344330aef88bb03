"""Data sets and models that the tests of calibration data share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mvlm.compile.calibration_data.default_data import DEFAULT_TEXT
from mvlm.compile.calibration_data.model_input import ModelInput
from mvlm.compile.calibration_data.samples import CalibrationData
from mvlm.models.config.read import read_config
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID, Tokenizer

ROOT = Path(__file__).parents[3]
BUNDLED = ROOT / "models" / "bundled" / "mobilevlm-shapes"
DEFAULT_FOLDER = DEFAULT_TEXT.parent
TYPICAL = DEFAULT_TEXT.read_text(encoding="utf-8")

TOKENIZER = Tokenizer(BUNDLED / "tokenizer.model")
SEES = ModelInput.of(read_config(BUNDLED), TOKENIZER)
IMAGE_TOKENS = 36
READS = replace(SEES, image=None, image_tokens=0)

ENGLISH = (
    "The committee met on Thursday to review the budget for the coming year, and after some "
    "discussion it agreed to postpone the purchase of new equipment until the spring. "
)


def text_of(data: CalibrationData) -> str:
    """The text of all samples, whose tokenizer is the bundled model's."""
    return TOKENIZER.decode(
        token for sample in data.samples for token in sample.ids if token != IMAGE_TOKEN_ID
    )


def entry(index: int, image: str | None = "red.png", **changes: Any) -> dict[str, Any]:
    """A conversation of some 60 words."""
    mark = "" if image is None else "<image>\n"
    turns = said(
        ("human", f"{mark}What is number {index}?"),
        ("gpt", "It is a number. " * 12),
        ("human", "Why?"),
        ("gpt", "Because. " * 12),
    )
    shown = {} if image is None else {"image": image}
    return {"id": str(index), **shown, "conversations": turns, **changes}


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    """The turns of a conversation, as LLaVA's format has them."""
    return [{"from": role, "value": text} for role, text in turns]
