"""Draws the data that calibration reads, from the user's files or from the default ones.

What is drawn depends on the files, the model's tokenizer and image size, and the seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mvlm.compile.calibration_data.default_data import DEFAULT_SCENES, DEFAULT_TEXT
from mvlm.compile.calibration_data.llava_source import LlavaSource
from mvlm.compile.calibration_data.model_input import ModelInput
from mvlm.compile.calibration_data.samples import CalibrationData
from mvlm.compile.calibration_data.share import Share, draw
from mvlm.compile.calibration_data.source_file import JSON_SUFFIXES, check_text_file
from mvlm.compile.calibration_data.text_source import TextSource
from mvlm.runtime.errors import UsageError

MIN_POSITIONS = 2048
"""Less data are refused: the inputs of a layer would not be known well enough."""

MAX_POSITIONS = 2**20
_LENGTHS = (64, 8192)


@dataclass(frozen=True)
class DrawSettings:
    """How much is drawn.

    Attributes:
        tokens: Positions of the decoder in all samples, about; images take theirs.
        length: Positions of one sample. With images, those of one image come on top.
        seed: Chooses what is drawn.

    Raises:
        UsageError: A number is out of range.
    """

    tokens: int = 16_384
    length: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, least, most in (
            ("tokens to calibrate with", self.tokens, MIN_POSITIONS, MAX_POSITIONS),
            ("length of a sample", self.length, *_LENGTHS),
        ):
            if not least <= value <= most:
                raise UsageError(option, expected=f"{least:,} to {most:,}", found=f"{value:,}")


def read_samples(
    sources: Sequence[Path],
    images: Path | None,
    model: ModelInput,
    settings: DrawSettings | None = None,
) -> CalibrationData:
    """Draw calibration data.

    Args:
        sources: Plain text (``.txt``, ``.md``) or conversations in LLaVA's format (``.json``,
            ``.jsonl``), in UTF-8. If there are none, the default data: a text, and scenes with
            questions if the model reads images.
        images: The folder that images' names are relative to; each file's own folder if None.
        model: What reads the data.
        settings: How much is drawn; the defaults if None.

    Raises:
        UsageError: A file is absent, not in its format or over a limit; or there is too little
            data.
    """
    settings = settings or DrawSettings()
    length = _sample_length(settings, model)
    shares = []
    try:
        for index, path in enumerate(_paths(sources, images, model)):
            rng = Random(f"{settings.seed}/calibration/{index}")
            shares.append(Share(_open(path, images, model, length, rng)))
        samples = draw(shares, settings.tokens, model.image_tokens)
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}", found=error.strerror) from None
    _refuse_too_little(shares)
    warnings = [] if length == settings.length else [_shorter_samples(length, model)]
    warnings += [warning for share in shares for warning in share.warnings(model.tokenizer)]
    positions = sum(share.positions for share in shares)
    if positions < settings.tokens:
        warnings.append(
            f"The calibration data has {positions:,} tokens, fewer than the {settings.tokens:,} "
            "asked for. More data makes a better model."
        )
    return CalibrationData(samples, tuple(share.summary() for share in shares), tuple(warnings))


def _sample_length(settings: DrawSettings, model: ModelInput) -> int:
    """Return the positions of a sample that fit into the model's context with an image."""
    length = min(settings.length, model.context - model.image_tokens)
    if length < _LENGTHS[0]:
        raise UsageError(
            "the model's context is too short to calibrate with",
            expected=f"at least {_LENGTHS[0] + model.image_tokens:,} positions",
            found=f"{model.context:,}",
        )
    return length


def _paths(sources: Sequence[Path], images: Path | None, model: ModelInput) -> Sequence[Path]:
    """Return the files to draw from."""
    if images is not None and not sources:
        raise UsageError(
            "a folder of images without data",
            expected="a file of conversations that name the images",
            fix="Give the file, or neither for the default data.",
        )
    if images is not None and not images.is_dir():
        raise UsageError(f"there is no folder {images}", expected="the folder of the images")
    twice = next((path for path in sources if sources.count(path) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice", expected="each file once")
    return sources or (DEFAULT_TEXT, *([DEFAULT_SCENES] if model.image is not None else []))


def _open(
    path: Path, images: Path | None, model: ModelInput, length: int, rng: Random
) -> TextSource | LlavaSource:
    size = check_text_file(path)
    if path.suffix.lower() in JSON_SUFFIXES:
        return LlavaSource(path, images or path.parent, model, length, rng)
    return TextSource(path, size, model.tokenizer, length, rng)


def _refuse_too_little(shares: Sequence[Share]) -> None:
    positions = sum(share.positions for share in shares)
    if positions >= MIN_POSITIONS:
        return
    skipped = "; ".join(filter(None, (share.source.skipped.describe() for share in shares)))
    raise UsageError(
        "there is too little calibration data",
        expected=f"at least {MIN_POSITIONS:,} tokens",
        found=f"{positions:,}" + (f", and entries passed over: {skipped}" if skipped else ""),
        fix="Give more data, or none for the default data.",
    )


def _shorter_samples(length: int, model: ModelInput) -> str:
    image = f", of which an image takes {model.image_tokens:,}" if model.image_tokens else ""
    return (
        f"Calibration reads samples of {length:,} tokens: the model's context has "
        f"{model.context:,}{image}."
    )
