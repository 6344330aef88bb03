"""``mvlm tune``: search a model's kernels by measuring candidates on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvlm.cli.shared.options import (
    Checkpoint,
    Debug,
    Json,
    Platform,
    Quantization,
    Target,
    VisionTower,
)
from mvlm.cli.shared.terminal import show, show_columns, show_json
from mvlm.cli.shared.tuning_table import watching
from mvlm.runtime.errors import UsageError

if TYPE_CHECKING:
    from mvlm.compile.tuning.devices import DeviceProvider
    from mvlm.compile.tuning.tuner import TuningResult
    from mvlm.compile.tuning_log import TaskResult

EXAMPLES = (
    "mvlm tune MobileVLM-V2-1.7B",
    "mvlm tune MobileVLM-V2-1.7B --trials 1000 --only linear_ --seed 3",
    "mvlm tune MobileVLM-V2-1.7B --target snapdragon-888-cpu --rpc 192.168.0.7:9190 "
    "--device-key phone",
)


def command(
    model: Checkpoint,
    target: Target = "host",
    platform: Platform = None,
    quantization: Quantization = None,
    vision_quantization: Annotated[
        str | None,
        typer.Option("--vision-quant", metavar="QUANT", help="The same for tower and projector."),
    ] = None,
    vision_tower: VisionTower = None,
    trials: Annotated[
        int, typer.Option(metavar="N", help="Candidates to measure, over all kernels.")
    ] = 500,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Tune only functions with this in their names, such as linear_.",
        ),
    ] = None,
    logs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder of logs; default: the user's own, which `mvlm compile` reads.",
        ),
    ] = None,
    rpc: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Measure on devices registered with this TVM tracker.",
        ),
    ] = None,
    device_key: Annotated[
        str | None,
        typer.Option("--device-key", metavar="KEY", help="The key of those devices, with --rpc."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="The limit of one measurement.")
    ] = 60.0,
    seed: Annotated[int, typer.Option(metavar="N", help="The seed of the search.")] = 0,
    cost_model: Annotated[
        bool,
        typer.Option(
            "--cost-model/--no-cost-model",
            help="Rank candidates by a cost model, or draw them at random.",
        ),
    ] = True,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Tune a model's kernels for a device.

    A kernel's knobs (tile sizes, prefetch distances, how loops are split and parallelized) are
    searched, starting from the defaults; trials go to the kernels that take most of a chat turn.
    The best are re-measured against the default, interleaved, and kept only if significantly faster
    and correct. `mvlm compile` applies the log.

    Each measurement is in the log as soon as it is made: after Ctrl-C, the same command resumes.
    Stop other programs first: their load disturbs the measurements.
    """
    from mvlm.compile.job import plan_job
    from mvlm.compile.tuning.options import TuningOptions
    from mvlm.compile.tuning_log import user_logs_folder
    from mvlm.models.quantization import DEFAULT_SCHEME, plan_quantization

    options = TuningOptions(
        trials=trials,
        logs=user_logs_folder() if logs is None else logs,
        seed=seed,
        has_cost_model=cost_model,
        timeout=timeout,
        functions=tuple(only or ()),
    )
    schemes = plan_quantization(
        DEFAULT_SCHEME if quantization is None else quantization, vision=vision_quantization
    )
    job = plan_job(
        model,
        target=target,
        platform=platform,
        quantization=schemes,
        vision_tower=vision_tower,
        logs=(),
    )
    provider = _provider(rpc, device_key, job.target.name, job.target.cpu.is_native)
    with watching() as observer:
        from mvlm.compile.tuning.tuner import tune

        result = tune(job, options, provider, observer)
    if json:
        show_json(_document(result))
    else:
        _show(result)


def _provider(
    rpc: str | None, key: str | None, target: str, is_native: bool
) -> DeviceProvider | None:
    """Return the provider of devices; None for this machine."""
    if (rpc is None) != (key is None):
        raise UsageError("--rpc and --device-key belong together", fix="Give both.")
    if rpc is None or key is None:
        if not is_native:
            raise UsageError(
                f"{target} is not this machine",
                expected="--rpc HOST:PORT --device-key KEY",
                found="neither",
                fix="Run `mvlm device tracker` here and `mvlm device serve` on the device.",
            )
        return None
    from mvlm.compile.tuning.devices import TrackerProvider
    from mvlm.runtime.measurement.server import Address

    return TrackerProvider(Address.parse(rpc, "--rpc"), key)


def _outcomes(result: TuningResult) -> list[TaskResult]:
    found = result.provenance.results
    return [found[key] for key in result.keys if key in found]


def _document(result: TuningResult) -> dict[str, Any]:
    from dataclasses import asdict

    results = _outcomes(result)
    return {
        "log": str(result.log),
        "trials": result.trials,
        "tuned": sum(task_result.record is not None for task_result in results),
        "default": sum(task_result.record is None for task_result in results),
        "run": asdict(result.provenance.runs[-1]),
        "kernels": [asdict(task_result) for task_result in results],
    }


def _show(result: TuningResult) -> None:
    results = _outcomes(result)
    winners = sorted(
        (each for each in results if each.record is not None), key=lambda each: -each.gain
    )
    show(f"{len(winners)} of {len(results)} kernels are faster than by default")
    if winners:
        rows = [("kernel", "default", "tuned", "gain", "noise", "trials")]
        rows += [
            (
                each.name,
                f"{1e6 * each.default_seconds:,.1f} us",
                f"{1e6 * (each.tuned_seconds or 0):,.1f} us",
                f"{each.gain:.1%}",
                f"{each.noise:.1%}",
                str(each.trials),
            )
            for each in winners
        ]
        show_columns(rows)
    show(f"log  {result.log}")
