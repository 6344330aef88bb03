"""``mvlm compile``: from a checkpoint to an artifact."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvlm.cli.shared.interrupts import deferred_interrupts
from mvlm.cli.shared.options import (
    Checkpoint,
    Debug,
    Json,
    Platform,
    Quantization,
    Target,
    VisionTower,
)
from mvlm.cli.shared.progress import progress_bars
from mvlm.cli.shared.terminal import readable_bytes, show, show_json, show_table, warn

if TYPE_CHECKING:
    from mvlm.compile.job import CompileJob

EXAMPLES = (
    "mvlm compile MobileVLM-1.7B",
    "mvlm compile MobileVLM-1.7B --target host --quant q0f16 -o mobilevlm-host",
    "mvlm compile MobileVLM-1.7B --target snapdragon-888-cpu -o mobilevlm-kryo",
    "mvlm compile MobileVLM-1.7B --lora flowers --lora birds -o artifacts",
)


def command(
    model: Checkpoint,
    target: Target = "host",
    platform: Platform = None,
    quantization: Quantization = None,
    vision_quantization: Annotated[
        str | None,
        typer.Option(
            "--vision-quant",
            metavar="QUANT",
            help="The same for tower and projector; default: q16a16 with q4a8, q8a8 and q16a16, "
            "q0f32 with q0f32, q0f16 with the others.",
        ),
    ] = None,
    embedding_quantization: Annotated[
        str | None,
        typer.Option(
            "--embedding-quant",
            metavar="QUANT",
            help="The same for the embedding table; default: as --quant.",
        ),
    ] = None,
    head_quantization: Annotated[
        str | None,
        typer.Option(
            "--head-quant",
            metavar="QUANT",
            help="The same for the output head; default: as --quant.",
        ),
    ] = None,
    rounding: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="How each group's scale is chosen: nearest, or search for the one with the "
            "least error; default: search for q4a8, else nearest.",
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            "--kv-cache",
            metavar="float32|float16|int8",
            help="Storage of keys and values; default: int8 where activations are, else that of "
            "unquantized weights.",
        ),
    ] = None,
    vision_tower: VisionTower = None,
    vision_onnx: Annotated[
        Path | None,
        typer.Option(
            "--vision-onnx",
            metavar="FILE",
            help="Take tower, projector or both from this ONNX graph; its shapes say which.",
        ),
    ] = None,
    lora: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Merge this LoRA adapter, as peft saves it. With several each makes an artifact "
            "of its own, below -o in a folder of its name, with its parents' names before it "
            "where two have the same; what they have in common is stored once.",
        ),
    ] = None,
    share: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="ARTIFACT",
            help="Store weights that are equal to this artifact's only once, by hard links.",
        ),
    ] = None,
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
    allow_nonfinite: Annotated[
        bool,
        typer.Option("--allow-nonfinite", help="Take NaN in weights for 0 and infinity for 65504."),
    ] = False,
    logs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Take what was tuned from these logs; default: the user's and those that come "
            "with mvlm.",
        ),
    ] = None,
    no_tuning: Annotated[
        bool, typer.Option("--no-tuning", help="Use the default schedules alone.")
    ] = False,
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
    from mvlm.compile.cache import cached_artifact, prepare_place
    from mvlm.compile.distinct_names import adapter_places
    from mvlm.compile.job import PREFILL_CHUNK, plan_job
    from mvlm.models.quantization import DEFAULT_SCHEME, plan_quantization

    schemes = plan_quantization(
        DEFAULT_SCHEME if quantization is None else quantization,
        embedding=embedding_quantization,
        head=head_quantization,
        vision=vision_quantization,
        cache=cache,
        rounding=rounding,
    )
    adapters: list[Path | None] = [*lora] if lora else [None]
    jobs = [
        plan_job(
            model,
            target=target,
            platform=platform,
            quantization=schemes,
            vision_tower=vision_tower,
            adapter=adapter,
            vision_onnx=vision_onnx,
            context=context,
            prefill_chunk=PREFILL_CHUNK if prefill_chunk is None else prefill_chunk,
            allow_nonfinite=allow_nonfinite,
            logs=() if no_tuning else logs,
        )
        for adapter in adapters
    ]
    places = adapter_places(lora or (), output)
    for job in jobs:
        job.check_adapter()
    link_sources, documents = list(share or ()), []
    for job, place in zip(jobs, places, strict=True):
        artifact = cached_artifact(job) if place is None else place
        if place is None:
            prepare_place(artifact)
        documents.append(_compile(job, artifact, dump, link_sources))
        link_sources.append(artifact)
    if json:
        show_json(documents[0] if len(documents) == 1 else {"artifacts": documents})
        return
    for document in documents:
        show(document["artifact"])
        show_table(
            [
                ("digest", document["digest"]),
                ("size", readable_bytes(document["bytes"])),
                ("kernels", _kernels(document["tuning"])),
                ("time", f"{document['seconds']:.1f} s"),
            ]
        )


def _compile(
    job: CompileJob, artifact: Path, dump: Path | None, share: list[Path]
) -> dict[str, Any]:
    begin, warnings = time.perf_counter(), list[str]()
    with (
        progress_bars(in_bytes=("weights",)) as draw,
        deferred_interrupts() as raise_if_interrupted,
    ):

        def progress(step: str, done: int, total: int) -> None:
            raise_if_interrupted()
            draw(step, done, total)

        progress("compile: starting", 0, 1)
        from mvlm.compile.driver import compile_job

        manifest = compile_job(
            job, artifact, dump=dump, share=share, progress=progress, warn=warnings.append
        )
    for warning in warnings:
        warn(f"warning: {warning}")
    return {
        "artifact": str(artifact),
        "digest": manifest.digest,
        "bytes": sum(entry.size for entry in manifest.files),
        "target": job.target.name,
        "platform": job.platform,
        "quantization": dict(manifest.quantization),
        "published_as": manifest.model["published_as"],
        "tuning": manifest.provenance["tuning"],
        "warnings": warnings,
        "seconds": round(time.perf_counter() - begin, 3),
    }


def _kernels(tuning: dict[str, Any]) -> str:
    """Say how many kernels came tuned, from where, and how many did not."""
    logs = ", ".join(f"{log['name']} of {log['date'][:10]}" for log in tuning["logs"])
    return f"{tuning['tuned']} tuned{f' ({logs})' if logs else ''}, {tuning['default']} by default"
