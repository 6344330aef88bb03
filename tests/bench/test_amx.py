"""Whether llama.cpp is built with AMX: where CPUID reports it and a program can use it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mvlm.bench.peers.amx import build_flags

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    facts = tmp_path / "cpuinfo"
    facts.write_text("flags\t\t: fpu avx2 amx_bf16 avx512_fp16 amx_tile amx_int8\n")
    return facts


def probe(folder: Path, statement: str) -> Path:
    program = folder / "probe.c"
    program.write_text(f"int main(void) {{ {statement} }}\n")
    return program


@needs_compiler
def test_amx_that_works_stays(reported: Path, tmp_path: Path) -> None:
    assert build_flags(reported, probe(tmp_path, "return 0;")) == ""


@needs_compiler
@pytest.mark.parametrize("statement", ["return 1;", "__builtin_trap();", "no C at all"])
def test_amx_that_fails_is_left_out(reported: Path, tmp_path: Path, statement: str) -> None:
    flags = build_flags(reported, probe(tmp_path, statement))
    assert flags.split() == ["-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16"]


def test_nothing_runs_where_amx_is_not_reported(tmp_path: Path) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("flags\t\t: fpu avx2\n")
    assert build_flags(facts, tmp_path / "none.c") == ""
    assert build_flags(tmp_path / "none", tmp_path / "none.c") == ""
