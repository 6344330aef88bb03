"""``mvlm calibrate``: round a checkpoint's weights by what its layers read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvlm.cli.shared.options import (
    Adapter,
    AllowNonfinite,
    Checkpoint,
    Debug,
    Json,
    Quantization,
    VisionTower,
)
from mvlm.cli.shared.progress import interruptible_progress
from mvlm.cli.shared.quantization import (
    Bits,
    CalibrationFiles,
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
from mvlm.cli.shared.terminal import show_columns, show_json, show_table, warn

if TYPE_CHECKING:
    from mvlm.compile.calibration.rounded_weights import LayerReport
    from mvlm.compile.job import CompileJob

EXAMPLES = (
    "mvlm calibrate MobileVLM-V2-1.7B",
    "mvlm calibrate MobileVLM-V2-1.7B --quant q3a8 --data mix665k.json "
    "--calibration-images images --calibration-tokens 32768",
)


def command(
    model: Checkpoint,
    data: CalibrationFiles = None,
    images: CalibrationImages = None,
    tokens: CalibrationTokens = None,
    seed: CalibrationSeed = None,
    quantization: Quantization = None,
    vision_quantization: VisionQuantization = None,
    embedding_quantization: EmbeddingQuantization = None,
    head_quantization: HeadQuantization = None,
    ffn_quantization: FfnQuantization = None,
    bits: Bits = None,
    plan: PlanFile = None,
    vision_tower: VisionTower = None,
    lora: Adapter = None,
    allow_nonfinite: AllowNonfinite = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Round a checkpoint's weights by what its layers read.

    The model reads some data, layer by layer, and each layer's matrices of 8 bits or fewer are
    rounded such that the layer's outputs change least (GPTQ). The result is kept in the cache:
    `mvlm compile --calibrate` with the same data and quantization takes it from there, for every
    device. It takes as many bytes, and is as fast, as without calibration.

    Finished layers are kept: after Ctrl-C, the same command resumes.
    """
    from mvlm.compile.calibration_data.request import DEFAULT_DATA
    from mvlm.compile.job import plan_job

    schemes = chosen_quantization(
        quantization,
        bits=bits,
        plan=plan,
        ffn=ffn_quantization,
        embedding=embedding_quantization,
        head=head_quantization,
        vision=vision_quantization,
    )
    job = plan_job(
        model,
        quantization=schemes,
        vision_tower=vision_tower,
        adapter=lora,
        allow_nonfinite=allow_nonfinite,
        calibration=calibration_request(data or [Path(DEFAULT_DATA)], images, tokens, seed),
    )
    job.check_adapter()
    document, parts = _calibrate(job)
    if json:
        show_json(document)
    else:
        _show(document, parts)


def _calibrate(job: CompileJob) -> tuple[dict[str, Any], Mapping[str, Sequence[LayerReport]]]:
    from dataclasses import asdict

    begin, warnings = time.perf_counter(), list[str]()
    with interruptible_progress() as progress:
        progress("calibrate: starting", 0, 1)
        from mvlm.compile.bits.find import with_plan
        from mvlm.compile.calibration.find import find_or_calibrate

        job = with_plan(job, progress, warnings.append)
        weights = find_or_calibrate(job, progress, warnings.append)
    for warning in warnings:
        warn(f"warning: {warning}")
    data, parts = job.calibration_data, weights.reports()
    assert data is not None and parts is not None
    return {
        "calibration": str(weights.folder),
        "key": weights.key,
        "samples": len(data.samples),
        "positions": data.positions,
        "images": sum(source.images for source in data.sources),
        "quantization": job.quantization.names(),
        "layers": [asdict(each) for reports in parts.values() for each in reports],
        "warnings": warnings,
        "seconds": round(time.perf_counter() - begin, 3),
    }, parts


def _show(document: dict[str, Any], parts: Mapping[str, Sequence[LayerReport]]) -> None:
    rows = [("part", "error of outputs", "without calibration")]
    for part, reports in parts.items():
        for each in reports:
            name = each.layer.rpartition(".")[2]
            rows.append((f"{part} {name}", f"{each.error:.3%}", f"{each.plain_error:.3%}"))
    show_columns(rows)
    show_table(
        [
            ("data", f"{document['positions']:,} positions, {document['images']} images"),
            ("kept in", document["calibration"]),
            ("time", f"{document['seconds']:.1f} s"),
        ]
    )
