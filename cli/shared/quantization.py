"""The options by which verbs choose how a model is stored, and what it is calibrated with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvlm.runtime.errors import UsageError

if TYPE_CHECKING:
    from mvlm.compile.calibration_data.request import CalibrationRequest
    from mvlm.models.quantization import Quantization

VisionQuantization = Annotated[
    str | None,
    typer.Option(
        "--vision-quant",
        metavar="QUANT",
        help="The same for tower and projector; default: q16a16 with q3a8, q4a8, q8a8 and q16a16, "
        "q0f32 with q0f32, q0f16 with the others.",
    ),
]
EmbeddingQuantization = Annotated[
    str | None,
    typer.Option(
        "--embedding-quant",
        metavar="QUANT",
        help="The same for the embedding table; default: q8a8 with q3a8 and q4a8, else as --quant.",
    ),
]
HeadQuantization = Annotated[
    str | None,
    typer.Option(
        "--head-quant",
        metavar="QUANT",
        help="The same for the output head; default: q8a8 with q3a8 and q4a8, else as --quant.",
    ),
]
FfnQuantization = Annotated[
    str | None,
    typer.Option(
        "--ffn-quant",
        metavar="QUANT",
        help="The same for the MLPs of the decoder's layers, where --quant is q3a8, q4a8 or q8a8; "
        "default: as --quant.",
    ),
]
Bits = Annotated[
    float | None,
    typer.Option(
        "--bits",
        metavar="N",
        help="Choose q3a8, q4a8 or q8a8 for each part of each decoder layer by what it costs the "
        "model, with N bits a weight on average: 3.25 to 8.5. See `mvlm plan`.",
    ),
]
PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        metavar="FILE",
        help="Take each part's scheme from this file, which `mvlm plan -o FILE` writes.",
    ),
]
CalibrationFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="A text, or conversations in LLaVA's JSON format; default: what mvlm ships.",
    ),
]
CalibrationImages = Annotated[
    Path | None,
    typer.Option(
        "--calibration-images",
        metavar="DIR",
        help="The folder of the images that calibration data name; default: the file's own.",
    ),
]
CalibrationTokens = Annotated[
    int | None,
    typer.Option(
        "--calibration-tokens",
        metavar="N",
        help="Positions to calibrate with, those of images included; default: 16384.",
    ),
]
CalibrationSeed = Annotated[
    int | None,
    typer.Option(
        "--calibration-seed",
        metavar="N",
        help="Chooses the samples that are drawn from the data; default: 0.",
    ),
]


def chosen_quantization(
    quantization: str | None,
    *,
    bits: float | None,
    plan: Path | None,
    **options: str | None,
) -> Quantization:
    """Return what the options ask for.

    Args:
        quantization: The decoder's scheme; the default one if None.
        bits: Of a weight of the decoder's layers, on average.
        plan: A file with a plan of bits.
        options: Other arguments of :func:`plan_quantization`.

    Raises:
        UsageError: A name is unknown, a file is no plan, or options exclude each other.
    """
    from mvlm.compile.bits.plan_file import read_plan
    from mvlm.models.quantization import DEFAULT_SCHEME, plan_quantization

    return plan_quantization(
        DEFAULT_SCHEME if quantization is None else quantization,
        bits=bits,
        plan=None if plan is None else read_plan(plan),
        **options,
    )


def calibration_request(
    data: list[Path] | None, images: Path | None, tokens: int | None, seed: int | None
) -> CalibrationRequest | None:
    """Return what the options ask for; None where no data are given.

    Raises:
        UsageError: A number is out of range, or there are options without data.
    """
    from mvlm.compile.calibration_data.request import CalibrationRequest

    if not data:
        if (images, tokens, seed) != (None, None, None):
            raise UsageError(
                "there is nothing to calibrate with",
                expected="--calibrate DATA beside the other options of calibration",
                found="none",
                fix="`--calibrate default` takes the data that mvlm ships.",
            )
        return None
    return CalibrationRequest.of(data, images, tokens, seed)
