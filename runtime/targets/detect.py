"""Which target a machine is. Imports neither tvm nor numpy: it is asked on devices, too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mvlm.runtime.machine import Machine
from mvlm.runtime.targets.description import Recognition, TargetDescription


@dataclass(frozen=True)
class Match:
    """A target that a machine seems to be.

    Attributes:
        target: The target.
        by: What it was recognised by.
        is_certain: Whether it was by its own name; other chips may have the same cores.
    """

    target: TargetDescription
    by: str
    is_certain: bool


def detect_targets(machine: Machine, targets: Iterable[TargetDescription]) -> list[Match]:
    """Return the targets that a machine is, the certain ones first; `host` is none of them."""
    matches = [
        match
        for target in targets
        if not target.cpu.is_native and (match := _match(machine, target))
    ]
    return sorted(matches, key=lambda match: not match.is_certain)


def _match(machine: Machine, target: TargetDescription) -> Match | None:
    known: Recognition = target.recognition
    if machine.architecture != target.cpu.architecture:
        return None
    for name in machine.names:
        if any(_contains(name, each) for each in known.names):
            return Match(target, name, is_certain=True)
    if known.core_parts and set(known.core_parts) == machine.core_parts:
        return Match(target, f"cores {' '.join(known.core_parts)}", is_certain=False)
    return None


def _contains(name: str, word: str) -> bool:
    return word.casefold() in name.casefold()
