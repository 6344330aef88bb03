"""Everything that is to be known of a device, in one run there: whether it works, and how fast."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from mvlm.bench.bandwidth import measure_in_child
from mvlm.bench.device_report import SCHEMA_VERSION
from mvlm.bench.measure import MeasurementPlan, measure_speeds
from mvlm.bench.report import machine_facts, make_report
from mvlm.runtime.artifact import verify_artifact
from mvlm.runtime.chat import Chat
from mvlm.runtime.image import load_image, preprocess
from mvlm.runtime.machine import Machine, read_machine
from mvlm.runtime.machine.state import read_state
from mvlm.runtime.model import Model
from mvlm.runtime.progress import Progress, no_progress
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.targets import known_targets
from mvlm.runtime.targets.detect import detect_targets

PROMPT = "Describe the picture."
_TOKENS = 48


def check_device(
    artifact: Path,
    image: Path | None,
    plan: MeasurementPlan,
    threads: int | None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Verify an artifact, chat with it and measure it.

    Args:
        artifact: Its folder.
        image: An image to ask about; a grey one is measured, and none asked about, if None.
        plan: What is measured.
        threads: Threads to compute on; the fast cores if None.
        progress: Called as the work proceeds.

    Returns:
        The report: see `device_report`.

    Raises:
        MvlmError: The artifact is damaged or does not belong here.
    """
    steps = 6
    progress("verify", 0, steps)
    machine, cores = read_machine(), os.sched_getaffinity(0)
    begin = time.perf_counter()
    manifest = verify_artifact(artifact, machine)
    verified = time.perf_counter() - begin
    before, facts = read_state(), machine_facts()
    progress("load", 1, steps)
    begin = time.perf_counter()
    model = Model(artifact, threads)
    loaded = time.perf_counter() - begin
    progress("chat", 2, steps)
    chat = _chat(model, image)
    progress("bandwidth", 3, steps)
    bandwidths = measure_in_child(model.threads, cores)
    progress("speeds", 4, steps)
    spec = model.settings.image
    pixels = None if spec is None else np.zeros((1, 3, spec.size, spec.size), np.float32)
    runs = measure_speeds(model, plan, pixels)
    after = read_state()
    progress("bandwidth", 5, steps)
    bandwidths += measure_in_child(model.threads, cores)
    report = make_report(artifact, manifest, plan, model.threads, runs, bandwidths, facts)
    progress("bandwidth", steps, steps)
    return {
        "schema": SCHEMA_VERSION,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": _device(machine),
        "verified_s": verified,
        "loaded_s": loaded,
        "chat": chat,
        "before": before,
        "after": after,
        "speeds": report.to_json(),
    }


def _chat(model: Model, image: Path | None) -> dict[str, Any]:
    spec = model.settings.image
    shown = image if spec is not None else None
    pixels = [preprocess(load_image(shown), spec)] if shown and spec else []
    params = SamplingParams(max_tokens=_TOKENS)
    completion = Chat(model).generate(PROMPT, pixels, params).completion
    return {"prompt": PROMPT, "image": shown and shown.name, **completion.to_json()}


def _device(machine: Machine) -> dict[str, Any]:
    matches = detect_targets(machine, known_targets().values())
    return {
        "cpu": machine.cpu,
        "names": list(machine.names),
        "core_parts": sorted(machine.core_parts),
        "architecture": machine.architecture,
        "features": sorted(machine.features),
        "platform": machine.platform,
        "libc": machine.libc,
        "page_bytes": machine.page_bytes,
        "memory_bytes": machine.memory_bytes,
        "targets": [{"name": match.target.name, "by": match.by} for match in matches],
    }
