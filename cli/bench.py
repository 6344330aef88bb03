"""``mvlm bench``: speeds of a model on this machine, alone or relative to other tools."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvlm.cli.shared.artifacts import find_artifact
from mvlm.cli.shared.compare import ComparisonRequest, compare
from mvlm.cli.shared.options import (
    Debug,
    Json,
    OptionalArtifactOrModel,
    PromptTokens,
    Quantization,
    Runs,
    Threads,
    Tokens,
    VisionTower,
)
from mvlm.cli.shared.progress import progress_bars, waiting
from mvlm.cli.shared.terminal import readable_bytes, show, show_json, show_table
from mvlm.runtime.errors import UsageError

if TYPE_CHECKING:
    from mvlm.bench.batch import BatchSpeed
    from mvlm.bench.report import Report, Spread
    from mvlm.runtime.model import FloatArray, Model
    from mvlm.runtime.profiler import KernelTime

EXAMPLES = (
    "mvlm bench mobilevlm-host",
    "mvlm bench mobilevlm-host --threads 1 --runs 10 --json",
    "mvlm bench mobilevlm-host --profile",
    "mvlm bench mobilevlm-host --batch 1,4,8,16",
    "mvlm bench MobileVLM-V2-1.7B --peer llama.cpp --peer torch --write docs",
    "mvlm bench MobileVLM-V2-1.7B --peer llama.cpp --scenario decode --runs 3",
    "mvlm bench --from-report report.json",
)

_KERNELS_SHOWN = 12

# Parameters and their options: of a measurement of ours alone, and of a comparison.
_ALONE = {
    "prompt_tokens": "--prompt-tokens",
    "tokens": "--tokens",
    "image": "--image",
    "quantization": "--quant",
    "profile": "--profile",
    "batch": "--batch",
}
_COMPARED = {"scenario": "--scenario", "write": "--write"}


def command(
    context: typer.Context,
    path: OptionalArtifactOrModel = None,
    threads: Threads = None,
    runs: Runs = 5,
    prompt_tokens: PromptTokens = 200,
    tokens: Tokens = 64,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An image to encode; default: a grey one."),
    ] = None,
    quantization: Quantization = None,
    vision_tower: VisionTower = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also time each kernel, in a separate run.")
    ] = False,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Also decode so many sequences at once, each of --tokens after --prompt-tokens.",
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure this tool interleaved with ours, on a checkpoint: llama.cpp, "
            "ik_llama.cpp, onnxruntime-genai, openvino-genai or torch.",
        ),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="With --peer: measure only this scenario, such as decode; a wrong name lists all.",
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --peer: write speed.md and speed.svg into this folder; with --from-report: "
            "put the table into its devices.md.",
        ),
    ] = None,
    from_report: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Measure nothing: make a table of reports of `mvlm device-check`; may be given "
            "several times.",
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a model's speeds and the memory's read bandwidth.

    It prints the median, minimum and maximum of the runs. The bandwidth is measured before and
    after the runs, on the same number of threads. Stop other programs first: the load is recorded.

    With --peer, each tool runs in its own process, interleaved with ours, and the ratios are
    compared with our goals. This requires a checkpoint, which is converted once for each tool. All
    scenarios with all tools take an hour. If other processes disturbed the runs, the results are
    printed but not judged, and the exit code is 1, as it is if a tool failed.
    """
    if from_report:
        _show_reports(from_report, path, write)
        return
    if path is None:
        raise UsageError("no artifact or model is named", fix="`mvlm bench --help` has examples.")
    if peer:
        _refuse(context, _ALONE, "is not for a comparison with --peer")
        compare(
            path,
            ComparisonRequest(
                tuple(peer), tuple(scenario or ()), runs, threads, vision_tower, write
            ),
            json=json,
        )
        return
    _refuse(context, _COMPARED, "is for a comparison with --peer")
    from mvlm.bench.bandwidth import measure_in_child
    from mvlm.bench.batch import check_batch, measure_batch
    from mvlm.bench.measure import MeasurementPlan, measure_speeds, profile_kernels
    from mvlm.bench.report import machine_facts, make_report
    from mvlm.runtime.model import Model

    plan, sizes = MeasurementPlan(runs, prompt_tokens, tokens), _batch_sizes(batch)
    artifact = find_artifact(path, quantization=quantization, vision_tower=vision_tower)
    machine, cores = machine_facts(), os.sched_getaffinity(0)
    with waiting("verifying and loading the artifact"):
        model = Model(artifact, threads)
        pixels = _pixels(model, image)
    check_batch(sizes, plan, model.settings.context)
    with progress_bars() as progress:
        progress("bandwidth", 0, 2)
        bandwidths = measure_in_child(model.threads, cores)
        progress("bandwidth", 1, 2)
        speeds = measure_speeds(model, plan, pixels, lambda done: progress("runs", done, plan.runs))
        batches = (
            measure_batch(model, sizes, plan, lambda done: progress("batch", done, plan.runs))
            if sizes
            else []
        )
        bandwidths += measure_in_child(model.threads, cores)
        progress("bandwidth", 2, 2)
        times = profile_kernels(model, plan, pixels) if profile else {}
    report = make_report(artifact, model.manifest, plan, model.threads, speeds, bandwidths, machine)
    if json:
        kernels = {name: [asdict(time) for time in times[name]] for name in times}
        extras = {"batch": [asdict(each) for each in batches]} if batches else {}
        show_json(report.to_json() | extras | ({"profile": kernels} if profile else {}))
        return
    _show(report)
    if batches:
        _show_batches(batches)
    for function, kernels_of in times.items():
        _show_profile(function, kernels_of)


def _show_reports(paths: Sequence[Path], path: Path | None, write: Path | None) -> None:
    """Print the reports of devices as a table, and put it into the documentation."""
    from mvlm.bench.device_report import MARK, read_device_report, table
    from mvlm.bench.docs_table import write_table

    if path is not None:
        raise UsageError("--from-report measures nothing", found=str(path), fix="Leave it out.")
    text = table([read_device_report(path) for path in paths])
    show(text, end="")
    if write is not None:
        write_table(write / "devices.md", MARK, text)


def _refuse(context: typer.Context, options: Mapping[str, str], reason: str) -> None:
    """Raise UsageError for the first of the options that the user gave."""
    for parameter, option in options.items():
        source = context.get_parameter_source(parameter)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{option} {reason}", fix="Leave it out.")


def _pixels(model: Model, image: Path | None) -> FloatArray | None:
    """Return the image's pixels, or grey ones, or None for a model of text only."""
    from mvlm.cli.shared.images import load_pixels

    if image is not None:
        return load_pixels(image, model)
    spec = model.settings.image
    if spec is None:
        return None
    import numpy as np

    return np.zeros((1, 3, spec.size, spec.size), np.float32)


def _show(report: Report) -> None:
    machine = report.machine
    loads = ", ".join(
        f"{load[0]:.1f} {when}" if (load := machine[f"load_{when}"]) else f"not told {when}"
        for when in ("before", "after")
    )
    bandwidth = f"{report.read_bandwidth_bytes_s / 1e9:.1f} GB/s read by {report.threads} threads"
    share = f"{readable_bytes(report.weight_bytes_per_token)} of weights a token"
    show_table(
        [
            ("vision", f"{_spread(report.vision_ms)} ms"),
            ("prefill", f"{_spread(report.prefill_tok_s)} tok/s"),
            ("decode", f"{_spread(report.decode_tok_s)} tok/s"),
            ("first token", f"{_spread(report.first_token_ms)} ms"),
            ("peak RSS", readable_bytes(report.peak_rss_bytes.median)),
            ("bandwidth", bandwidth),
            ("share", f"{report.bandwidth_share:.1%} of it by decode, at {share}"),
            ("machine", f"{machine['cpu']}, {machine['cores']} cores, load {loads}"),
        ]
    )


def _batch_sizes(text: str | None) -> list[int]:
    """Read the sizes of ``--batch``."""
    words = text.split(",") if text is not None else []
    if not all(word.strip().isdecimal() for word in words):
        raise UsageError("--batch", expected="numbers such as 1,4,8", found=repr(text))
    return sorted({int(word) for word in words})


def _show_batches(batches: Sequence[BatchSpeed]) -> None:
    show("")
    show_table(
        [
            (f"{each.rows} at once", f"{each.step_ms:,.2f} ms a step  {each.tok_s:8,.1f} tok/s")
            for each in batches
        ]
    )


def _show_profile(function: str, times: Sequence[KernelTime]) -> None:
    total = sum(time.seconds for time in times)
    show("")
    show(f"{function}, {1e3 * total:,.1f} ms")
    rows = [
        (
            f"{time.seconds / total:6.1%}",
            f"{1e3 * time.seconds:10,.2f} ms  {time.calls:6,}  {time.kernel}",
        )
        for time in times
    ]
    show_table(rows[:_KERNELS_SHOWN])


def _spread(spread: Spread) -> str:
    return f"{spread.median:,.1f} ({spread.min:,.1f} to {spread.max:,.1f})"
