"""Speeds of the same types at a real size, relative to llama.cpp's Q4_0 in the same run.

They are read from reports as `mvlm bench --peer --json` prints them: the peers' own, or those that
:func:`measure_speeds` makes of all rows. It measures three rows at a time, interleaved with Q4_0:
all of them would not fit into memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from mvlm.bench.peers.benchmark import Benchmark, Tool
from mvlm.bench.peers.catalogue import OURS, PEERS
from mvlm.bench.peers.comparison import Comparison
from mvlm.bench.peers.runner import Setup
from mvlm.bench.peers.scenarios import BUILDS, SCENARIOS
from mvlm.bench.quality.ggml import IK_LLAMA_CPP, LLAMA_CPP, GgmlRow
from mvlm.bench.quality.ours import OurRow
from mvlm.bench.quality.row import Row
from mvlm.bench.report import machine_facts
from mvlm.compile.cache import cached_artifact, is_artifact, prepare_place
from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.models.interchange import Conversion, convert
from mvlm.runtime.errors import MvlmError, UsageError

BASE = GgmlRow(LLAMA_CPP, "Q4_0")
SCENARIO_NAMES = ("decode", "prefill-256")

_TOGETHER = 3
_WHOLE = "model-f16.gguf"
# Names in the peers' reports, which have one type of each tool.
_ALIASES = {
    OURS: f"{OURS} {BUILDS[OURS][0]}",
    LLAMA_CPP: BASE.speed_name,
    IK_LLAMA_CPP: f"{IK_LLAMA_CPP} IQ4_KS",
}


@dataclass(frozen=True)
class Speed:
    """Speeds relative to those of llama.cpp's Q4_0; None where they were not measured.

    Attributes:
        decode: Of decoding 128 tokens after 200.
        prefill: Of reading 256 tokens.
    """

    decode: float | None
    prefill: float | None


def read_speeds(file: Path) -> dict[str, Speed]:
    """Return the speeds of a report, or of a list of reports, by the rows' speed names.

    Raises:
        UsageError: The file cannot be read, or is no such report.
    """
    try:
        found = json.loads(file.read_text())
        reports = found if isinstance(found, list) else [found]
        return {name: speed for report in reports for name, speed in _speeds(report)}
    except OSError as error:
        raise UsageError(f"cannot read {file}", found=error.strerror) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{file} is no report of speeds",
            expected="what `mvlm bench MODEL --peer llama.cpp --json` prints",
        ) from None


def measure_speeds(
    checkpoint: Path,
    rows: Iterable[Row],
    folder: Path,
    rounds: int,
    notice: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Measure the types of some rows on a model, and return the reports.

    Args:
        checkpoint: The model, of a real size.
        rows: Whose types; each type is measured once, calibrated or not.
        folder: Where the tools' files are kept.
        rounds: That count.
        notice: Called with a line for each group.

    Raises:
        MvlmError: A tool is not installed or fails, or the checkpoint is not usable.
    """
    machine, cores = machine_facts(), os.sched_getaffinity(0)
    job = plan_job(checkpoint)
    setup = Setup(
        files={},
        threads=len(cores),
        context=0,
        vocabulary=job.config.language.vocab_size,
        bos=job.config.generation.bos_token_id,
        image=job.config.image,
        has_vision=False,
    )
    benchmark = Benchmark(setup, job.config.image_tokens, rounds, cores)
    place = folder / f"speed-{job.checkpoint_digest()[:16]}"
    place.mkdir(parents=True, exist_ok=True)
    base = _tool(BASE, checkpoint, place)
    chosen = {row.speed_name: row for row in rows if row.speed_name != BASE.speed_name}
    tools = [_tool(row, checkpoint, place) for row in chosen.values()]
    reports = []
    for at in range(0, len(tools), _TOGETHER):
        group = [base, *tools[at : at + _TOGETHER]]
        notice("measuring the speeds of " + ", ".join(tool.name for tool in group))
        comparison = Comparison(
            model=job.name,
            threads=setup.threads,
            rounds=rounds,
            peers=tuple(tool.name for tool in group),
            results=tuple(benchmark.run(SCENARIOS[name], group) for name in SCENARIO_NAMES),
            machine=machine | {"load_after": list(os.getloadavg())},
            command="make quality",
        )
        if comparison.failures:
            raise MvlmError("speeds cannot be measured", found="; ".join(comparison.failures))
        for disturbance in comparison.disturbances:
            notice(f"the machine was not quiet: {disturbance}")
        reports.append(comparison.to_json())
    return reports


def _speeds(report: dict[str, Any]) -> list[tuple[str, Speed]]:
    medians: dict[str, dict[str, float]] = {name: {} for name in SCENARIO_NAMES}
    for scenario in report["scenarios"]:
        for tool, values in scenario["systems"].items():
            if scenario["name"] in medians and values["spread"] is not None:
                name = _ALIASES.get(tool, tool)
                medians[scenario["name"]][name] = float(values["spread"]["median"])

    def ratio(scenario: str, name: str) -> float | None:
        own, base = (medians[scenario].get(each) for each in (name, BASE.speed_name))
        return None if own is None or not base else own / base

    names = dict.fromkeys(name for values in medians.values() for name in values)
    return [(name, Speed(*(ratio(each, name) for each in SCENARIO_NAMES))) for name in names]


def _tool(row: Row, checkpoint: Path, folder: Path) -> Tool:
    """Return a row's tool with its files of the model, which are made if they are not there."""
    if isinstance(row, OurRow):
        job = replace(row, calibrated=False).plan(checkpoint)
        artifact = cached_artifact(job)
        prepare_place(artifact)
        if not is_artifact(artifact):
            compile_job(job, artifact)
        files = {"artifact": str(artifact)}
        return Tool(row.speed_name, "mvlm.bench.peers.ours", files, has_vision=False)
    assert isinstance(row, GgmlRow)
    file = folder / f"{row.tool}-{row.file_type}.gguf"
    if not file.is_file():
        _write_gguf(row, checkpoint, file)
    return Tool(row.speed_name, PEERS[row.tool].module, {"model": str(file)}, has_vision=False)


def _write_gguf(row: GgmlRow, checkpoint: Path, file: Path) -> None:
    whole, part = file.parent / _WHOLE, file.with_suffix(".part")
    if not whole.is_file():
        convert(checkpoint, file.parent, Conversion("gguf", "f16", text_only=True))
    import_module(PEERS[row.tool].module).quantize(whole, part, row.file_type)
    part.replace(file)
