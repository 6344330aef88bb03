"""Whether a device is of the kind that is tuned for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvlm.compile.compile_target import CompileTarget
from mvlm.compile.tuning_log.provenance import check_device
from mvlm.runtime.artifact.json_object import JsonObject
from mvlm.runtime.errors import ArtifactError
from mvlm.runtime.machine import Machine
from mvlm.runtime.measurement.kernel_runner import PROTOCOL
from mvlm.runtime.targets import TargetDescription
from mvlm.runtime.targets.detect import detect_targets


def native_cpu(target: CompileTarget) -> str:
    """Return LLVM's name of a target's CPU, which distinguishes machines of the target ``host``."""
    return str(target.options.get("mcpu") or target.architecture)


def mismatch(
    target: CompileTarget, description: TargetDescription, device: Mapping[str, Any]
) -> str | None:
    """Return why a device does not match the target, or None if it does.

    An emulator matches: its times go to a log of its own, which is never applied.

    Args:
        target: The compilation's target.
        description: The target's description.
        device: The device's description of itself.
    """
    try:
        check_device(JsonObject(device, "its description"))
        machine = _machine(device["machine"])
    except (ArtifactError, KeyError, TypeError, ValueError) as error:
        return f"has an invalid description: {error}"
    if device.get("protocol") != PROTOCOL:
        return "runs another version of mvlm: update it, or make its bundle anew by `mvlm package`"
    if machine.architecture != target.architecture:
        return f"is {machine.architecture}, not {target.architecture}"
    missing = sorted(set(target.features) - machine.features)
    if missing:
        return f"has no {', '.join(missing)}"
    can_tell = bool(description.recognition.core_parts or description.recognition.names)
    if can_tell and not machine.is_emulated and not detect_targets(machine, [description]):
        return f"is {machine.cpu}, which is not {description.name}"
    return None


def _machine(values: Mapping[str, Any]) -> Machine:
    sets = {key: frozenset(map(str, values[key])) for key in ("features", "core_parts")}
    return Machine(**{**values, **sets, "names": tuple(map(str, values["names"]))})
