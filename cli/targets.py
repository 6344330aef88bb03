"""``mvlm targets``: the devices, and whether this machine can build for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.progress import waiting
from mvlm.cli.shared.terminal import readable_bytes, show, show_json, show_table

if TYPE_CHECKING:
    from mvlm.compile.targets import TargetDescription
    from mvlm.runtime.machine import Machine

EXAMPLES = ("mvlm targets", "mvlm targets --detect --json")


def command(
    detect: Annotated[
        bool, typer.Option("--detect", help="Say what this machine is as well.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the devices, and what is missing to build for them.

    For each, what the build machine uses: the CPU features, the linker; or the command that brings
    what it lacks.
    """
    from mvlm.runtime.machine import read_machine

    with waiting("asking the compiler"):
        from mvlm.compile.targets import TARGETS

        entries = [_describe(target) for target in TARGETS.values()]
    machine = read_machine() if detect else None
    if json:
        document: dict[str, Any] = {"targets": entries}
        show_json(document | ({"machine": _machine_json(machine)} if machine else {}))
        return
    if machine:
        _show_machine(machine)
    for entry in entries:
        _show_target(entry)


def _describe(target: TargetDescription) -> dict[str, Any]:
    from mvlm.runtime.errors import TargetError

    entry: dict[str, Any] = {"name": target.name, "summary": target.summary}
    try:
        ready = target.prepare()
    except TargetError as error:
        missing = {"problem": error.problem, "expected": error.expected, "found": error.found}
        missing = {key: None if value is None else str(value) for key, value in missing.items()}
        return entry | {"ready": False, "missing": missing | {"fix": error.fix}}
    return entry | {
        "ready": True,
        "architecture": ready.architecture,
        "features": list(ready.features),
        "linker": ready.linker.description,
        "tvm": dict(ready.options),
    }


def _show_target(entry: dict[str, Any]) -> None:
    show(f"{entry['name']}: {entry['summary']}")
    if entry["ready"]:
        cpu = entry["tvm"].get("mcpu", "generic")
        rows = [
            ("status", "ready"),
            ("code", f"{entry['architecture']}, tuned for {cpu}"),
            ("features", " ".join(entry["features"])),
            ("linker", entry["linker"]),
        ]
    else:
        missing = entry["missing"]
        rows = [("status", f"missing: {missing['problem']}")]
        rows += [(key, missing[key]) for key in ("expected", "found", "fix") if missing[key]]
    show_table([(f"  {name}", value) for name, value in rows])


def _show_machine(machine: Machine) -> None:
    show("this machine")
    rows = [
        ("CPU", machine.cpu),
        ("architecture", machine.architecture),
        ("features", " ".join(sorted(machine.features))),
        ("cores", str(machine.cores)),
        ("memory", readable_bytes(machine.memory_bytes)),
    ]
    show_table([(f"  {name}", value) for name, value in rows])
    show("")


def _machine_json(machine: Machine) -> dict[str, Any]:
    return {
        "cpu": machine.cpu,
        "architecture": machine.architecture,
        "features": sorted(machine.features),
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
    }
