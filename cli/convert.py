"""``mvlm convert``: a checkpoint in another tool's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvlm.cli.shared.options import Adapter, AllowNonfinite, Checkpoint, Debug, Json, VisionTower
from mvlm.cli.shared.progress import progress_bars
from mvlm.cli.shared.terminal import readable_bytes, show, show_json, warn

EXAMPLES = (
    "mvlm convert MobileVLM-V2-1.7B --to gguf -o gguf",
    "mvlm convert MobileVLM-1.7B --to mlc --type q4f16_1 -o mlc",
    "mvlm convert MobileVLM-V2-1.7B --to onnx -o onnx",
)


def command(
    model: Checkpoint,
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="mlc, gguf or onnx.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="How weights are stored. mlc: q4f16_1 (default), q0f16, q0bf16, q0f32. gguf: f16 "
            "(default), f32, bf16, q8_0, q4_0. onnx: f32 (default), f16.",
        ),
    ] = None,
    vision_tower: VisionTower = None,
    lora: Adapter = None,
    allow_nonfinite: AllowNonfinite = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a checkpoint in another tool's format.

    mlc is mlc-llm's format. gguf is llama.cpp's: the decoder, and tower and projector as an mmproj.
    onnx is tower and projector for any ONNX runtime. docs/interchange.md lists where their results
    differ from MobileVLM's.
    """
    from mvlm.models.interchange import Conversion, convert
    from mvlm.runtime.artifact.staging import atomic_directory

    conversion, warnings = Conversion(to, kind, allow_nonfinite), list[str]()
    with progress_bars(in_bytes=("weights",)) as progress, atomic_directory(output, None) as folder:

        def advance(done: int, total: int) -> None:
            progress("weights", done, total)

        convert(
            model,
            folder,
            conversion,
            vision_tower=vision_tower,
            adapter=lora,
            progress=advance,
            warn=warnings.append,
        )
    for warning in warnings:
        warn(f"warning: {warning}")
    files = sorted(path for path in output.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in files)
    if json:
        names = [path.relative_to(output).as_posix() for path in files]
        document = {"output": str(output), "format": to, "files": names, "bytes": size}
        show_json(document | {"warnings": warnings})
        return
    show(f"{output}  {readable_bytes(size)}")
