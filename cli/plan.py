"""``mvlm plan``: which layers get 3, 4 or 8 bits, by what that costs the model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvlm.cli.shared.bit_plan import show_layers
from mvlm.cli.shared.options import Adapter, AllowNonfinite, Checkpoint, Debug, Json, VisionTower
from mvlm.cli.shared.progress import interruptible_progress
from mvlm.cli.shared.quantization import (
    CalibrationFiles,
    CalibrationImages,
    CalibrationSeed,
    CalibrationTokens,
    calibration_request,
)
from mvlm.cli.shared.terminal import show, show_json, show_table, warn

if TYPE_CHECKING:
    from mvlm.compile.job import CompileJob

EXAMPLES = (
    "mvlm plan MobileVLM-V2-1.7B --bits 3.75",
    "mvlm plan MobileVLM-V2-1.7B --bits 4.5 --data mix665k.json -o plan.json",
)


def command(
    model: Checkpoint,
    bits: Annotated[
        float,
        typer.Option(
            metavar="N",
            help="Bits of a weight of the decoder's layers, on average: 3.25 to 8.5.",
            show_default=False,
        ),
    ],
    data: CalibrationFiles = None,
    images: CalibrationImages = None,
    tokens: CalibrationTokens = None,
    seed: CalibrationSeed = None,
    vision_tower: VisionTower = None,
    lora: Adapter = None,
    allow_nonfinite: AllowNonfinite = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write the plan, for `mvlm compile --plan FILE`."
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show which layers get 3, 4 or 8 bits.

    Measures how much the model's next tokens change when one part of one layer is rounded, and
    chooses each part's scheme for the least sum of changes. `mvlm compile --bits` does the same:
    the measurement is kept in the cache, for all bits and devices. Finished layers are kept: after
    Ctrl-C, the same command resumes.
    """
    from mvlm.compile.bits.plan_file import write_plan
    from mvlm.compile.calibration_data.request import DEFAULT_DATA
    from mvlm.compile.job import plan_job
    from mvlm.models.quantization import plan_quantization

    job = plan_job(
        model,
        quantization=plan_quantization(bits=bits),
        vision_tower=vision_tower,
        adapter=lora,
        allow_nonfinite=allow_nonfinite,
        calibration=calibration_request(data or [Path(DEFAULT_DATA)], images, tokens, seed),
    )
    job.check_adapter()
    document = _plan(job)
    if output is not None:
        write_plan(output, document.pop("plan"))
        document["output"] = str(output)
    else:
        document.pop("plan")
    if json:
        show_json(document)
    else:
        _show(document)


def _plan(job: CompileJob) -> dict[str, Any]:
    begin, warnings = time.perf_counter(), list[str]()
    with interruptible_progress() as progress:
        progress("measure layers: starting", 0, 1)
        from mvlm.compile.bits.choose import choose_plan, total_loss
        from mvlm.compile.bits.find import find_or_measure

        losses = find_or_measure(job, progress, warnings.append)
    bits, weights = job.quantization.bits, job.config.language.unit_weights()
    assert bits is not None
    plan = choose_plan(losses, weights, bits)
    for warning in warnings:
        warn(f"warning: {warning}")
    return {
        "plan": plan,
        "bits": round(plan.mean_bits(weights), 4),
        "loss": total_loss(plan, losses),
        **plan.to_json(),
        "losses": [{unit: dict(each) for unit, each in layer.items()} for layer in losses],
        "warnings": warnings,
        "seconds": round(time.perf_counter() - begin, 3),
    }


def _show(document: dict[str, Any]) -> None:
    show_layers(document["layers"], document["losses"])
    show("")
    show_table(
        [
            ("bits a weight", f"{document['bits']:.4g}"),
            ("sum of losses", f"{document['loss']:.3g} nats"),
            ("time", f"{document['seconds']:.1f} s"),
            *([("written to", document["output"])] if "output" in document else []),
        ]
    )
