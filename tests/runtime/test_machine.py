"""What machine this is, read from /proc/cpuinfo as different CPUs write it."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from mvlm.runtime.machine import (
    FEATURES,
    available_memory_bytes,
    description,
    peak_rss_bytes,
    read_machine,
)
from mvlm.runtime.machine.description import auxiliary_value
from tests.runtime.control_groups import write_hierarchy, write_memory

ZEN = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 7B13
flags\t\t: fpu sse sse2 ssse3 fma sse4_1 sse4_2 popcnt avx f16c bmi1 avx2 bmi2 sha_ni

processor\t: 1
model name\t: Another name
flags\t\t: fpu sse sse2
"""
KRYO = """processor\t: 0
BogoMIPS\t: 38.40
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd05
"""


def read(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    return path


def test_this_machine() -> None:
    machine = read_machine()
    assert machine.architecture == platform.machine()
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.memory_bytes > 64 << 20
    assert machine.features <= FEATURES[machine.architecture].keys()
    assert machine.cpu


def test_an_x86(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    machine = read_machine(read(tmp_path, ZEN))
    assert machine.cpu == "AMD EPYC 7B13"
    assert {"avx2", "fma", "f16c", "bmi1"} <= machine.features
    assert "sse2" not in machine.features
    assert not any(name.startswith("avx512") for name in machine.features)
    attributes = machine.llvm_attributes
    assert {"+avx2", "+fma", "+bmi", "-avx512f", "-avx512vnni", "-amx-int8"} <= set(attributes)
    assert len(attributes) == len(FEATURES["x86_64"])


def test_a_kryo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    machine = read_machine(read(tmp_path, KRYO))
    assert machine.features == {"asimd", "asimddp", "asimdhp", "atomics"}
    assert machine.cpu == "0xd05"
    attributes = set(machine.llvm_attributes)
    assert {"+neon", "+dotprod", "+fullfp16", "-i8mm", "-sve"} <= attributes


def test_an_emulated_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its /proc/cpuinfo is the machine's that it runs on; the kernel's own words to it are not."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    # A Cortex-A76's AT_HWCAP, and no bit of AT_HWCAP2.
    words = {16: 0x119FFB, 26: 0}
    machine = read_machine(read(tmp_path, ZEN), auxiliary=words.__getitem__)
    assert machine.features == {"asimd", "asimddp", "asimdhp", "atomics"}
    newer = read_machine(read(tmp_path, ZEN), auxiliary=lambda word: (1 << 14) | (1 << 22))
    assert newer.features == {"bf16", "sve"}


def test_what_the_kernel_told_this_process() -> None:
    assert auxiliary_value(6) == os.sysconf("SC_PAGE_SIZE")
    assert auxiliary_value(1 << 20) == 0


def test_kinds_of_cores(tmp_path: Path) -> None:
    text = KRYO + "\nprocessor\t: 7\nCPU implementer\t: 0x41\nCPU part\t: 0xd44\n"
    assert read_machine(read(tmp_path, text)).core_parts == {"41:d05", "41:d44"}
    assert read_machine(read(tmp_path, ZEN)).core_parts == frozenset()


def test_a_boards_names(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson AGX Orin\0")
    (tmp_path / "compatible").write_bytes(b"nvidia,p3737-0000+p3701-0000\0nvidia,tegra234\0")
    text = KRYO + "\nHardware\t: Qualcomm Technologies, Inc SM8350\n"
    machine = read_machine(read(tmp_path, text), tmp_path)
    assert machine.cpu == "NVIDIA Jetson AGX Orin"
    assert machine.names[2:] == ("nvidia,tegra234", "Qualcomm Technologies, Inc SM8350")
    assert read_machine(read(tmp_path, ZEN), tmp_path / "none").names == ()


def test_a_phones_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "getprop"
    tool.write_text('#!/bin/sh\n[ "$1" = ro.soc.model ] && echo SM8350 || echo "A phone"\n')
    tool.chmod(0o755)
    monkeypatch.setattr(description, "_GETPROP", tool)
    assert read_machine(read(tmp_path, KRYO), tmp_path / "none").names == ("SM8350", "A phone")


def test_the_system() -> None:
    machine = read_machine()
    assert machine.platform == "linux" and machine.libc.startswith("glibc 2.")
    assert machine.page_bytes == os.sysconf("SC_PAGE_SIZE")


def test_android(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Termux's Python says it, which is built for one level and may run on a higher one."""
    monkeypatch.setattr(sys, "getandroidapilevel", lambda: 24, raising=False)
    machine = read_machine()
    assert (machine.platform, machine.libc) == ("android", "api 24")


@pytest.mark.parametrize(("name", "meant"), [("arm64", "aarch64"), ("AMD64", "x86_64")])
def test_other_systems_names(name: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: name)
    assert read_machine().architecture == meant


@pytest.mark.parametrize("text", ["", "\0\xff garbage", "flags", "flags:", ":::\n\n"])
def test_a_file_that_says_nothing(tmp_path: Path, text: str) -> None:
    machine = read_machine(read(tmp_path, text))
    assert machine.features == frozenset()
    assert machine.cpu == machine.architecture


def test_no_file_at_all(tmp_path: Path) -> None:
    assert read_machine(tmp_path / "nothing").features == frozenset()


def test_an_architecture_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    machine = read_machine()
    assert (machine.features, machine.llvm_attributes) == (frozenset(), [])


def test_peak_memory_is_in_bytes() -> None:
    before = peak_rss_bytes()
    held = bytearray(64 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    assert 20 << 20 < before <= peak_rss_bytes()
    assert peak_rss_bytes() >= 64 << 20


def test_available_memory_here() -> None:
    free = available_memory_bytes()
    assert free is not None
    assert 1 << 20 < free <= read_machine().memory_bytes


def test_available_memory_is_the_least_of_what_is_told(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9999 kB\nMemAvailable:    4096 kB\n")
    assert available_memory_bytes(tmp_path) == 4096 * 1024
    group = write_hierarchy(tmp_path, "0::/box", cgroup2=tmp_path / "groups")
    write_memory(group, most="1000000", current=600_000, cached=100_000)
    assert available_memory_bytes(tmp_path) == 500_000


def test_available_memory_where_nothing_is_told(tmp_path: Path) -> None:
    assert available_memory_bytes(tmp_path) is None
    (tmp_path / "meminfo").write_text("nothing of use\n")
    assert available_memory_bytes(tmp_path) is None
