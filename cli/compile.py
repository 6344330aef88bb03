"""``mvlm compile``: from a checkpoint to an artifact."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvlm.cli.shared.options import (
    AllowNonfinite,
    Checkpoint,
    Debug,
    Json,
    Platform,
    Quantization,
    Target,
    VisionTower,
)
from mvlm.cli.shared.progress import interruptible_progress
from mvlm.cli.shared.quantization import (
    Bits,
    CalibrationImages,
    CalibrationSeed,
    CalibrationTokens,
    EmbeddingQuantization,
    FfnQuantization,
    HeadQuantization,
    PlanFile,
    VisionQuantization,
    calibration_request,
    chosen_quantization,
)
from mvlm.cli.shared.terminal import readable_bytes, show, show_json, show_table, warn

if TYPE_CHECKING:
    from mvlm.compile.job import CompileJob

EXAMPLES = (
    "mvlm compile MobileVLM-1.7B",
    "mvlm compile MobileVLM-1.7B --target host --quant q0f16 -o mobilevlm-host",
    "mvlm compile MobileVLM-1.7B --target snapdragon-888-cpu -o mobilevlm-kryo",
    "mvlm compile MobileVLM-1.7B --quant q3a8 --calibrate default",
    "mvlm compile MobileVLM-1.7B --bits 3.75 --calibrate default",
    "mvlm compile MobileVLM-1.7B --lora flowers --lora birds -o artifacts",
)


def command(
    model: Checkpoint,
    target: Target = "host",
    platform: Platform = None,
    quantization: Quantization = None,
    vision_quantization: VisionQuantization = None,
    embedding_quantization: EmbeddingQuantization = None,
    head_quantization: HeadQuantization = None,
    ffn_quantization: FfnQuantization = None,
    bits: Bits = None,
    plan: PlanFile = None,
    rounding: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="How each group's scale is chosen: nearest, or search for the least error; "
            "default: search for q4a8 and q3a8, else nearest.",
        ),
    ] = None,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATA",
            help="Round weights by the layers' inputs on this data: a text, or conversations in "
            "LLaVA's JSON format; `default` takes what mvlm ships. See `mvlm calibrate`.",
        ),
    ] = None,
    calibration_images: CalibrationImages = None,
    calibration_tokens: CalibrationTokens = None,
    calibration_seed: CalibrationSeed = None,
    cache: Annotated[
        str | None,
        typer.Option(
            "--kv-cache",
            metavar="float32|float16|int8",
            help="Dtype of the KV cache; default: int8 with q3a8, q4a8 and q8a8, float32 with "
            "q0f32, else float16.",
        ),
    ] = None,
    vision_tower: VisionTower = None,
    vision_onnx: Annotated[
        Path | None,
        typer.Option(
            "--vision-onnx",
            metavar="FILE",
            help="Replace tower, projector or both by this ONNX graph; its shapes determine which.",
        ),
    ] = None,
    lora: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Merge this LoRA adapter, in peft's format. With several, each makes an artifact, "
            "below -o in a folder of its name, preceded by its parents' names if two have the "
            "same. Equal weight files are stored once.",
        ),
    ] = None,
    share: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="ARTIFACT",
            help="Store weight files that equal this artifact's as hard links to them.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Positions of the context; default: the model's trained context."
        ),
    ] = None,
    prefill_chunk: Annotated[
        int | None,
        typer.Option(metavar="N", help="Prompt positions per prefill call; default: 512."),
    ] = None,
    allow_nonfinite: AllowNonfinite = False,
    logs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Folders of tuning logs to apply; default: the user's own, and those that mvlm "
            "ships.",
        ),
    ] = None,
    no_tuning: Annotated[
        bool, typer.Option("--no-tuning", help="Use only the default schedules.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="The artifact's folder; default: a folder in the cache, which is printed.",
        ),
    ] = None,
    dump: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the module after each phase into DIR."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compile a checkpoint for a device.

    Without -o, the artifact is written to the cache, where `mvlm chat MODEL` finds it.
    """
    from mvlm.compile.cache import cached_artifact, prepare_place
    from mvlm.compile.distinct_names import adapter_places
    from mvlm.compile.job import PREFILL_CHUNK, plan_job

    schemes = chosen_quantization(
        quantization,
        bits=bits,
        plan=plan,
        ffn=ffn_quantization,
        embedding=embedding_quantization,
        head=head_quantization,
        vision=vision_quantization,
        cache=cache,
        rounding=rounding,
    )
    calibration = calibration_request(
        calibrate, calibration_images, calibration_tokens, calibration_seed
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
            calibration=calibration,
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
    with interruptible_progress(in_bytes=("weights",)) as progress:
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
