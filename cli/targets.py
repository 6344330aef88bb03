"""``mvlm targets``: the devices, and whether this machine can build for them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mvlm.cli.shared.options import Debug, Json
from mvlm.cli.shared.progress import waiting
from mvlm.cli.shared.terminal import readable_bytes, show, show_json, show_table
from mvlm.cli.shared.user_path import target_name

if TYPE_CHECKING:
    from mvlm.compile.compile_target import Requirement
    from mvlm.runtime.errors import TargetError
    from mvlm.runtime.machine import Machine
    from mvlm.runtime.targets import TargetDescription
    from mvlm.runtime.targets.detect import Match

EXAMPLES = (
    "mvlm targets",
    "mvlm targets my-board.toml",
    "mvlm targets --detect --json",
    "mvlm targets --example > my-board.toml",
)


def command(
    target: Annotated[
        str | None,
        typer.Argument(
            parser=target_name,
            metavar="NAME|FILE",
            help="One target; default: all that mvlm ships.",
        ),
    ] = None,
    detect: Annotated[
        bool, typer.Option("--detect", help="Also print which target this machine is.")
    ] = False,
    example: Annotated[
        bool, typer.Option("--example", help="Print a description file to start your own from.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the targets, and what compiling for each requires.

    For each target and platform, it prints the requirements, whether this machine meets them, and
    the command that installs what is missing.
    """
    from mvlm.runtime.machine import read_machine
    from mvlm.runtime.targets import find_description, known_targets
    from mvlm.runtime.targets.catalogue import board_file
    from mvlm.runtime.targets.detect import detect_targets

    if example:
        show(board_file("snapdragon-888-cpu").read_text(encoding="utf-8"), end="")
        return
    chosen = [find_description(target)] if target else list(known_targets().values())
    machine = read_machine()
    with waiting("looking for toolchains"):
        entries = [_describe(each, machine) for each in chosen]
    matches = detect_targets(machine, chosen) if detect else []
    if json:
        document: dict[str, Any] = {"targets": entries}
        if detect:
            document["machine"] = _machine_json(machine, matches)
        show_json(document)
        return
    if detect:
        _show_machine(machine, matches)
    for entry in entries:
        _show_target(entry)


def _describe(target: TargetDescription, machine: Machine) -> dict[str, Any]:
    from dataclasses import asdict

    native = target.cpu.is_native
    platforms = (machine.platform,) if native else target.needs.platforms
    if find_spec("mvlm.compile") is None:
        platforms = ()  # a device's bundle: nothing is compiled there
    builds = [_describe_build(target, platform, machine) for platform in platforms]
    return {
        "name": target.name,
        "summary": target.summary,
        "architecture": machine.architecture if native else target.cpu.architecture,
        "features": sorted(target.cpu.code_features(machine)),
        "ready": any(build["ready"] for build in builds),
        "builds": builds,
        "description": asdict(target),
    }


def _describe_build(target: TargetDescription, platform: str, machine: Machine) -> dict[str, Any]:
    from mvlm.compile.compile_target import requirements

    found = requirements(target, platform, machine)
    return {
        "platform": platform,
        "ready": all(each.missing is None for each in found),
        "requirements": [_requirement_json(each) for each in found],
    }


def _requirement_json(requirement: Requirement) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": requirement.name, "found": requirement.found}
    return entry | {"missing": requirement.missing and _problem_json(requirement.missing)}


def _problem_json(error: TargetError) -> dict[str, str | None]:
    values = {"expected": error.expected, "found": error.found}
    shown = {key: None if value is None else str(value) for key, value in values.items()}
    return {"problem": error.problem, **shown, "fix": error.fix}


def _show_target(entry: dict[str, Any]) -> None:
    show(f"{entry['name']}: {entry['summary']}")
    needs = entry["description"]["needs"]
    rows = [("code", f"{entry['architecture']} {' '.join(entry['features'])}")]
    if needs["driver"]:
        rows.append(("device needs", needs["driver"]))
    for build in entry["builds"]:
        rows.append((build["platform"], "ready" if build["ready"] else "something is missing"))
        for each in build["requirements"]:
            missing = each["missing"]
            if missing is None:
                rows.append((f"  {each['name']}", each["found"]))
            else:
                rows.append((f"  {each['name']}", f"missing: {missing['problem']}"))
                rows += [("", missing["fix"])] if missing["fix"] else []
    show_table([(f"  {name}", value) for name, value in rows])


def _show_machine(machine: Machine, matches: list[Match]) -> None:
    show("this machine")
    rows = [("target", _named(match)) for match in matches] or [("target", "host")]
    rows += [
        ("CPU", machine.cpu),
        ("architecture", machine.architecture),
        ("features", " ".join(sorted(machine.features))),
        ("cores", str(machine.cores)),
        ("memory", readable_bytes(machine.memory_bytes)),
        ("system", f"{machine.platform}, {machine.libc or 'another C library'}"),
        ("pages", readable_bytes(machine.page_bytes)),
    ]
    show_table([(f"  {name}", value) for name, value in rows])
    show("")


def _named(match: Match) -> str:
    likely = "" if match.is_certain else "; other chips have the same ones"
    return f"{match.target.name}, by {match.by}{likely}"


def _machine_json(machine: Machine, matches: list[Match]) -> dict[str, Any]:
    return {
        "targets": [
            {"name": match.target.name, "by": match.by, "certain": match.is_certain}
            for match in matches
        ],
        "cpu": machine.cpu,
        "architecture": machine.architecture,
        "features": sorted(machine.features),
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
        "platform": machine.platform,
        "libc": machine.libc,
        "page_bytes": machine.page_bytes,
        "core_parts": sorted(machine.core_parts),
        "names": list(machine.names),
    }
