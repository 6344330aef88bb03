"""Finds on this machine what compiling for a device takes: a linker, the compiler's packages."""

from __future__ import annotations

import os
import platform as python_platform
import shlex
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

from mvlm.compile.toolchain.linker import Linker
from mvlm.compile.toolchain.stub_libraries import android_stub_libraries, tvm_stub_libraries
from mvlm.runtime.artifact.verify import TVM_VERSION
from mvlm.runtime.errors import TargetError
from mvlm.runtime.folders import package_folder
from mvlm.runtime.machine import Machine
from mvlm.runtime.targets.description import Needs, TargetDescription
from mvlm.runtime.targets.platforms import PLATFORMS, Platform

_COMPILERS = ("cc", "gcc", "clang")
_NDK_VARIABLE = "TVM_NDK_CC"  # as TVM's own helper has it


def find_linker(architecture: str, platform: Platform, needs: Needs, chosen: str = "") -> Linker:
    """Find a C compiler that links for a device.

    Args:
        architecture: The device's.
        platform: The device's.
        needs: Sizes of pages and versions of the C library that are linked for.
        chosen: The command that the device's description names, if it names one.

    Raises:
        TargetError: There is none; says how to install one.
    """
    if chosen:
        command = _chosen(chosen, "the target's `toolchain.linker`", "leave it out")
        found = Linker(command, Path(command[0]).name)
    elif platform.name == "android":
        found = _android(architecture, platform, needs)
    elif architecture == python_platform.machine():
        found = _native()
    else:
        found = _cross(architecture, platform, needs)
    if architecture == "x86_64":  # one size of pages
        return found
    pages = f"-Wl,-z,max-page-size={needs.page_bytes}"
    return replace(found, command=(*found.command, pages))


def linker_identity(target: TargetDescription, platform: str, machine: Machine) -> str:
    """Return what tells the linker for a device from others; empty where there is none here.

    Args:
        target: The device.
        platform: The name of the system that it runs.
        machine: This machine.
    """
    architecture = machine.architecture if target.cpu.is_native else target.cpu.architecture
    system, chosen = PLATFORMS[platform], target.toolchain.linker
    try:
        return _identity(find_linker(architecture, system, target.needs, chosen))
    except TargetError:
        return ""


def compiler_folder(name: str) -> Path:
    """Return the folder of one of the compiler's packages, which is not imported.

    Raises:
        TargetError: The compiler is not installed.
    """
    try:
        return package_folder(name)
    except ModuleNotFoundError:
        raise TargetError(
            "the compiler is not installed",
            expected=f"apache-tvm {TVM_VERSION}",
            found=f"no {name}",
            fix='`pip install "mvlm[compile]"`',
        ) from None


@cache
def _identity(linker: Linker) -> str:
    return linker.identity()


def _native() -> Linker:
    """Find a compiler for this machine: $CC, cc, gcc, clang, or zig from PyPI."""
    chosen = os.environ.get("CC")
    if chosen:
        return Linker(_chosen(chosen, "$CC", "unset CC"), chosen)
    for name in _COMPILERS:
        if path := shutil.which(name):
            return Linker((path,), name)
    zig = _zig()
    if zig:
        return Linker(zig, "zig cc")
    raise TargetError(
        "no C compiler to link with",
        expected=", ".join(_COMPILERS) + " or the package ziglang",
        found="none of them",
        fix="`pip install ziglang` needs no root; `apt-get install gcc` does.",
    )


def _cross(architecture: str, platform: Platform, needs: Needs) -> Linker:
    """Find Debian's cross compiler, or zig from PyPI."""
    triple = platform.triple_for(architecture)
    path = shutil.which(f"{triple}-gcc")
    if path:
        return Linker((path,), f"{triple}-gcc")
    zig = _zig()
    if zig:
        return Linker((*zig, "-target", f"{triple}.{needs.glibc}"), f"zig cc for {triple}")
    raise TargetError(
        f"no C compiler to link for {triple} with",
        expected=f"{triple}-gcc or the package ziglang",
        found="neither",
        fix="`pip install ziglang` needs no root; "
        f"`apt-get install gcc-{triple.replace('_', '-')}` does.",
    )


def _android(architecture: str, platform: Platform, needs: Needs) -> Linker:
    """Find an NDK's clang, or zig from PyPI, which has no libraries of Android's."""
    triple = platform.triple_for(architecture)
    chosen = os.environ.get(_NDK_VARIABLE)
    if chosen:
        command = _chosen(chosen, f"${_NDK_VARIABLE}", f"unset {_NDK_VARIABLE}")
        described = f"the NDK's {Path(command[0]).name}"
        return Linker(command, described, stub_libraries=tvm_stub_libraries)
    zig = _zig()
    if zig:
        command = (*zig, "-target", triple, "-nostdlib")
        return Linker(command, f"zig cc for {triple}", (), android_stub_libraries)
    raise TargetError(
        f"no C compiler to link for {triple} with",
        expected=f"${_NDK_VARIABLE} or the package ziglang",
        found="neither",
        fix="`pip install ziglang` suffices.",
    )


def _chosen(command: str, by: str, otherwise: str) -> tuple[str, ...]:
    """Return a command that a user has chosen, which may have arguments: ``ccache gcc``.

    Raises:
        TargetError: It is no program.
    """
    try:
        program, *arguments = shlex.split(command) or [""]
    except ValueError as error:  # a quote that is not closed
        raise TargetError(
            f"{by} is not a command line",
            found=f"{command!r}: {error}",
            fix=f"Correct it, or {otherwise}.",
        ) from None
    path = shutil.which(program)
    if path is None:
        raise TargetError(
            f"{by} is not a program", found=command, fix=f"Correct it, or {otherwise}."
        )
    return (path, *arguments)


def _zig() -> tuple[str, ...]:
    """Return the command of zig's C compiler, if the package is installed."""
    try:
        program = package_folder("ziglang") / "zig"
    except ModuleNotFoundError:
        return ()
    return (str(program), "cc") if program.is_file() else ()
