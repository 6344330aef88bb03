"""``mvlm compile``: from a checkpoint to an artifact."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from mvlm.cli.shared.interrupts import remembered_interrupts
from mvlm.cli.shared.options import Checkpoint, Debug, Json, Quantization, VisionTower
from mvlm.cli.shared.progress import progress_bars
from mvlm.cli.shared.terminal import readable_bytes, show, show_json, show_table

EXAMPLES = (
    "mvlm compile MobileVLM-1.7B",
    "mvlm compile MobileVLM-1.7B --target host --quant q0f16 -o mobilevlm-host",
)


def command(
    model: Checkpoint,
    target: Annotated[
        str, typer.Option(metavar="NAME", help="The device, as `mvlm targets` names it.")
    ] = "host",
    quantization: Quantization = None,
    vision_quantization: Annotated[
        str | None,
        typer.Option(
            "--vision-quant",
            metavar="QUANT",
            help="The same for tower and projector; default: what goes with --quant.",
        ),
    ] = None,
    vision_tower: VisionTower = None,
    context: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Positions of the context; default: what the model was trained for."
        ),
    ] = None,
    prefill_chunk: Annotated[
        int | None,
        typer.Option(metavar="N", help="Prompt positions that are computed at once; default: 512."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="The artifact's folder; default: a place in the cache, which is printed.",
        ),
    ] = None,
    dump: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the module after each phase there."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compile a checkpoint for a device.

    Without -o the artifact goes where `mvlm chat MODEL` finds it.
    """
    from mvlm.compile.cache import cached_artifact
    from mvlm.compile.job import PREFILL_CHUNK, plan_job
    from mvlm.models.quantization import DEFAULT_SCHEME

    begin = time.perf_counter()
    job = plan_job(
        model,
        target=target,
        quantization=DEFAULT_SCHEME if quantization is None else quantization,
        vision_quantization=vision_quantization,
        vision_tower=vision_tower,
        context=context,
        prefill_chunk=PREFILL_CHUNK if prefill_chunk is None else prefill_chunk,
    )
    artifact = cached_artifact(job) if output is None else output
    with progress_bars() as draw, remembered_interrupts() as raise_if_interrupted:

        def progress(step: str, done: int, total: int) -> None:
            raise_if_interrupted()
            draw(step, done, total)

        progress("compile: starting", 0, 1)
        from mvlm.compile.builder import compile_job

        manifest = compile_job(job, artifact, dump=dump, progress=progress)
    size = sum(entry.size for entry in manifest.files)
    seconds = time.perf_counter() - begin
    if json:
        document = {"artifact": str(artifact), "digest": manifest.digest, "bytes": size}
        document |= {"target": job.target, "quantization": dict(manifest.quantization)}
        show_json(document | {"seconds": round(seconds, 3)})
        return
    show(str(artifact))
    show_table(
        [
            ("digest", manifest.digest),
            ("size", readable_bytes(size)),
            ("time", f"{seconds:.1f} s"),
        ]
    )
