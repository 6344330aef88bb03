"""``mvlm synth``: a checkpoint with random weights in the layout of a published one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.progress import progress_bars
from mvlm.cli.shared.terminal import readable_bytes, show, show_json, warn

EXAMPLES = (
    "mvlm synth MobileVLM-V2-1.7B -o checkpoints/v2",
    "mvlm synth clip-vit-large-patch14-336 -o checkpoints/clip-vit-large-patch14-336",
    "mvlm synth MobileVLM-3B --layers 2 --format safetensors -o checkpoints/short",
)


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A published model, such as MobileVLM-V2-1.7B, or clip-vit-large-patch14-336, "
            "the vision tower of a MobileVLM V1. A wrong name lists them.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The checkpoint's folder.")
    ],
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the weights.")] = 0,
    layers: Annotated[
        int | None,
        typer.Option(min=1, max=1024, metavar="N", help="Decoder layers; default: all."),
    ] = None,
    file_format: Annotated[
        str,
        typer.Option(
            "--format", metavar="FORMAT", help="Weight files: bin, as published, or safetensors."
        ),
    ] = "bin",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a checkpoint with random weights and the layout of a published one.

    It serves to measure sizes and speeds without the published weights. Tensor names, shards,
    dtypes and JSON files are those of the release; the tokenizer's 32,000 tokens are invented.
    """
    from mvlm.models.model_zoo import CLIP_NAME, CLIP_REPOSITORY, find_published_model
    from mvlm.models.synthetic import write_synthetic, write_synthetic_clip
    from mvlm.runtime.artifact.staging import atomic_directory
    from mvlm.runtime.errors import UsageError

    is_clip = name in (CLIP_NAME, CLIP_REPOSITORY)
    published = None if is_clip else find_published_model(name)
    if is_clip and layers is not None:
        raise UsageError("--layers is for a decoder", found=CLIP_NAME, fix="Leave it out.")
    with (
        progress_bars(in_bytes=("weights",)) as progress,
        atomic_directory(output, mark=None) as folder,
    ):

        def advance(done: int, total: int) -> None:
            progress("weights", done, total)

        if published is None:
            write_synthetic_clip(folder, seed=seed, file_format=file_format, progress=advance)
        else:
            write_synthetic(
                published,
                folder,
                seed=seed,
                layers=layers,
                file_format=file_format,
                progress=advance,
            )
    size = sum(file.stat().st_size for file in output.iterdir())
    if json:
        shown = CLIP_NAME if published is None else published.name
        show_json({"checkpoint": str(output), "name": shown, "seed": seed, "bytes": size})
        return
    show(f"{output}  {readable_bytes(size)}")
    if published and published.projector and not published.tower_inside:
        warn(f"its vision tower is a folder of its own: mvlm synth {CLIP_NAME} -o DIR")
