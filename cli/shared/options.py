"""Options and arguments that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvlm.cli.shared.invocation import Invocation
from mvlm.cli.shared.user_path import target_name
from mvlm.runtime.threads import MAX_THREADS


def _remember_json(context: typer.Context, value: bool) -> bool:
    invocation(context).json |= value
    return value


def _remember_debug(context: typer.Context, value: bool) -> bool:
    invocation(context).debug |= value
    return value


def invocation(context: typer.Context) -> Invocation:
    """Return the call that a verb's context belongs to."""
    found = context.find_object(Invocation)
    assert found is not None
    return found


# Both are read before all others, so that an error in those is reported as asked for.
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_remember_json,
        is_eager=True,
        help="Print one JSON document; everything else goes to standard error.",
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", callback=_remember_debug, is_eager=True, help="Show a traceback on errors."
    ),
]

Artifact = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="An artifact's folder.", show_default=False)
]
_ARTIFACT_OR_MODEL = typer.Argument(
    metavar="ARTIFACT|MODEL",
    help="An artifact's folder, or a checkpoint's, which is compiled for this machine on first "
    "use.",
    show_default=False,
)
ArtifactOrModel = Annotated[Path, _ARTIFACT_OR_MODEL]
OptionalArtifactOrModel = Annotated[Path | None, _ARTIFACT_OR_MODEL]
Checkpoint = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A checkpoint's folder.", show_default=False)
]
Target = Annotated[
    str,
    typer.Option(
        parser=target_name,
        metavar="NAME|FILE",
        help="A target that `mvlm targets` lists, or a description file.",
    ),
]
Platform = Annotated[
    str | None,
    typer.Option(
        metavar="linux|android", help="The device's platform; default: the target's first."
    ),
]
Quantization = Annotated[
    str | None,
    typer.Option(
        "--quant",
        metavar="QUANT",
        help="How the decoder's weights are stored: q4a8 (default), q3a8, q4f16_1, q8a8, q16a16, "
        "q0f16 or q0f32.",
    ),
]
VisionTower = Annotated[
    Path | None,
    typer.Option(
        "--vision-tower",
        metavar="DIR",
        help="The folder of a MobileVLM V1's CLIP; default: searched for.",
    ),
]
Adapter = Annotated[
    Path | None,
    typer.Option("--lora", metavar="DIR", help="Merge this LoRA adapter, in peft's format."),
]
AllowNonfinite = Annotated[
    bool,
    typer.Option("--allow-nonfinite", help="Replace NaN in weights by 0, infinity by 65504."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=MAX_THREADS,
        metavar="N",
        help="Threads to compute on; default: one per fast core.",
    ),
]
# Of a measurement.
Runs = Annotated[int, typer.Option(metavar="N", help="Measured runs.")]
PromptTokens = Annotated[
    int, typer.Option(metavar="N", help="Positions of the prompt, including the image's.")
]
Tokens = Annotated[int, typer.Option(metavar="N", help="Tokens to decode.")]
