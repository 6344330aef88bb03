"""Descriptions of devices: ours, a user's own, wrong ones, and which of them a machine is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tvm

from mvlm.compile.compile_target import prepare_target, requirements, tvm_options
from mvlm.runtime.errors import TargetError, UsageError
from mvlm.runtime.machine import Machine, read_machine
from mvlm.runtime.targets import find_description, known_targets
from mvlm.runtime.targets.catalogue import board_file, read_description
from mvlm.runtime.targets.detect import detect_targets
from mvlm.schedules.device_needs import DeviceNeeds

KRYO = "snapdragon-888-cpu"
NAMES = ["host", "portable", KRYO, "snapdragon-888-adreno", "jetson-orin", "cuda", "opencl"]


def machine(architecture: str = "aarch64", *features: str, **others: object) -> Machine:
    return Machine(architecture, "A CPU", frozenset(features), 1, 1 << 30, **others)  # type: ignore[arg-type]


def edited(folder: Path, old: str, new: str) -> Path:
    """A user's board: the Snapdragon's description with one line changed."""
    text = board_file(KRYO).read_text(encoding="utf-8")
    assert old in text
    path = folder / "my-board.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


# --- ours ---------------------------------------------------------------------------------------


def test_ours_by_name() -> None:
    assert list(known_targets()) == NAMES
    assert all(name == target.name for name, target in known_targets().items())
    assert {path.stem for path in board_file("host").parent.glob("*.toml")} == set(NAMES)
    with pytest.raises(UsageError, match=r"unknown target: expected host.*found 'abacus'"):
        find_description("abacus")


@pytest.mark.parametrize("page", ["README.md", "docs/targets.md"])
def test_tables_list_every_target(page: str) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    rows = "".join(line for line in text.splitlines() if line.startswith("|"))
    missing = [name for name in NAMES if f"`{name}`" not in rows]
    assert not missing, f"add {missing} to the table of targets in {page}"


@pytest.mark.parametrize("name", NAMES)
def test_tvm_takes_them(name: str) -> None:
    target, here = known_targets()[name], read_machine()
    options = tvm_options(target)
    made = tvm.target.Target(dict(options))
    assert made.kind.name == ("llvm" if target.gpu is None else target.gpu.api)
    host = made if target.gpu is None else made.host
    architecture = here.architecture if target.cpu.is_native else "aarch64"
    assert str(host.attrs["mtriple"]).startswith(architecture)


def test_the_snapdragon_is_what_it_is() -> None:
    target = known_targets()[KRYO]
    assert sum(core.count for core in target.cpu.cores) == 8
    for platform, triple in (("linux", "aarch64-linux-gnu"), ("android", "aarch64-linux-android")):
        options = tvm_options(target, platform, machine())
        assert options["mtriple"] == triple
        assert {"+dotprod", "+fullfp16", "+lse", "-i8mm", "-sve"} <= set(options["mattr"])


def test_the_host_is_this_machine() -> None:
    here = read_machine()
    target = prepare_target(known_targets()["host"])
    assert target.architecture == here.architecture
    assert set(target.features) == here.features
    assert target.tvm.kind.name == "llvm"
    assert list(target.options["mattr"]) == here.llvm_attributes
    assert target.runtime_libraries["libtvm_runtime.so"][:4] == b"\x7fELF"


def test_an_architecture_that_is_not_supported() -> None:
    with pytest.raises(TargetError, match=r"not supported: expected x86_64 or aarch64.*riscv64"):
        prepare_target(known_targets()["host"], machine=machine("riscv64"))


def test_features_that_are_masked_are_not_used() -> None:
    """As in a virtual machine that hides AVX from a CPU whose model has it."""
    here = read_machine()
    if here.architecture != "x86_64":
        pytest.skip("names features of x86")
    masked = replace(here, features=here.features - {"avx2", "fma"})
    target = prepare_target(known_targets()["host"], machine=masked)
    assert {"-avx2", "-fma"} <= set(target.options["mattr"])
    assert "avx2" not in target.features


def test_a_system_that_a_device_does_not_run() -> None:
    with pytest.raises(UsageError, match="platform of jetson-orin: expected linux, found android"):
        prepare_target(known_targets()["jetson-orin"], "android")


def test_the_portable_target_uses_no_more_than_its_architecture() -> None:
    here, target = read_machine(), prepare_target(known_targets()["portable"])
    assert (target.architecture, target.features) == (here.architecture, ())
    assert "mcpu" not in target.options
    assert all(attribute.startswith("-") for attribute in target.options["mattr"])


def test_code_for_any_cpu_is_for_a_native_architecture(tmp_path: Path) -> None:
    path = edited(tmp_path, "threads = 4", "threads = 4\nbaseline = true")
    with pytest.raises(TargetError, match=r"'cpu\.baseline'"):
        find_description(str(path))


def test_kernels_that_are_not_there(tmp_path: Path) -> None:
    path = edited(tmp_path, 'kernels = "cpu"', 'kernels = "npu"')
    with pytest.raises(TargetError, match="no kernels for npu yet: expected cpu or portable"):
        prepare_target(find_description(str(path)))


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (DeviceNeeds("npu"), "for another kind of device: expected npu, found cpu"),
        (DeviceNeeds(features=frozenset({"sve"})), "need CPU features .*expected sve, found"),
    ],
)
def test_kernels_whose_needs_a_target_does_not_meet(
    needs: DeviceNeeds, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvlm.schedules.portable.NEEDS", needs)
    with pytest.raises(TargetError, match=words):
        prepare_target(known_targets()["portable"])


def test_kernels_that_are_not_there_yet() -> None:
    with pytest.raises(TargetError, match="no kernels for cuda yet"):
        prepare_target(known_targets()["jetson-orin"])
    kernels = requirements(known_targets()["jetson-orin"])[0]
    assert (kernels.name, kernels.found) == ("kernels", None)


# --- a user's own -------------------------------------------------------------------------------


def test_a_board_of_ones_own(tmp_path: Path) -> None:
    path = edited(tmp_path, 'name = "snapdragon-888-cpu"', 'name = "my-board"')
    target = find_description(str(path))
    assert replace(target, name=KRYO) == known_targets()[KRYO]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema = 1", "schema = 2", "key 'schema' is wrong: expected 1, found int 2"),
        ("schema = 1", "", "key 'schema' is wrong: expected 1, found no such key"),
        ("schema = 1", "schema = true", "key 'schema'"),
        ('kernels = "cpu"', 'kernel = "cpu"', "key 'kernel' is wrong: expected kernels, found no"),
        ('kernels = "cpu"', "", "key 'kernels' is wrong: expected a string, found no such key"),
        (
            'kernels = "cpu"',
            'kernels = "../cpu"',
            "key 'kernels'.*a kernel set's name, found ../cpu",
        ),
        ('kernels = "cpu"', 'kernels = "CPU"', "key 'kernels'.*a kernel set's name, found CPU"),
        ('kernels = "cpu"', 'kernels = "cuda"', r"key 'kernels'.*\[gpu\] table's api"),
        ('name = "snap', 'name = "Snap', "key 'name'.*lower-case.*found Snapdragon"),
        ('name = "snapdragon-888-cpu"', 'name = "../../etc"', "key 'name'"),
        ('name = "snapdragon-888-cpu"', "name = 888", "key 'name'.*a string, found int 888"),
        ('"aarch64"', '"riscv"', "'cpu.architecture'.*expected native or x86_64 or aarch64"),
        ('llvm = "cortex-a76"', 'llvm = ""', "'cpu.llvm'"),
        ('"asimddp", ', '"dotprod", ', "'cpu.features'.*asimddp.*found dotprod"),
        ('"asimddp", ', "7, ", r"'cpu.features\[1\]'.*a string, found int 7"),
        ("threads = 4", "threads = 0", "'cpu.threads'.*above 0, found 0"),
        ("threads = 4", "threads = 4.5", "'cpu.threads'.*whole number, found float 4.5"),
        ("threads = 4", "threads = true", "'cpu.threads'.*whole number, found bool True"),
        ("count = 1", "count = -1", r"'cpu.cores\[0\].count'.*found -1"),
        ("count = 1", "counts = 1", r"'cpu.cores\[0\].counts'.*expected count"),
        ("in_order = true", "in_order = 1", r"'cpu.cores\[2\].in_order'.*true or false"),
        ("gigabytes_s = 51.2", 'gigabytes_s = "51"', "'memory.gigabytes_s'.*a number, found str"),
        ("gigabytes_s = 51.2", "gigabytes_s = 0", "'memory.gigabytes_s'.*above 0"),
        ('["linux", "android"]', '["windows"]', "'needs.platforms'.*linux or android.*windows"),
        ('["linux", "android"]', "[]", "'needs.platforms'"),
        ('["linux", "android"]', '"linux"', "'needs.platforms'.*a list"),
        ("page_bytes = 65536", "page_bytes = 5000", "'needs.page_bytes'.*power of two"),
        ('glibc = "2.28"', 'glibc = "new"', "'needs.glibc'.*such as 2.28, found new"),
        ("[memory]", "[memories]", "key 'memories' is wrong: expected memory"),
        ("[memory]", "[[memory]]", "key 'memory'.*expected a table, found list"),
        ("[memory]", "[memory", "is not valid TOML"),
        ("[memory]", "\x00", "is not valid TOML"),
    ],
)
def test_a_description_that_is_wrong(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(TargetError, match=words) as caught:
        find_description(str(edited(tmp_path, old, new)))
    assert "my-board.toml" in str(caught.value)


def test_no_memory_table(tmp_path: Path) -> None:
    text = board_file(KRYO).read_text(encoding="utf-8")
    begin, end = text.index("[memory]"), text.index("[needs]")
    path = tmp_path / "my-board.toml"
    path.write_text(text[:begin] + text[end:], encoding="utf-8")
    with pytest.raises(TargetError, match=r"key 'memory'.*expected a table"):
        read_description(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x = " + b"[" * 100_000, b"#" * (2 << 20)])
def test_a_file_that_is_no_description(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "board.toml"
    if content is None:
        with pytest.raises(UsageError, match="cannot read the target"):
            find_description(str(path))
        return
    path.write_bytes(content)
    with pytest.raises(TargetError, match=r"board\.toml"):
        find_description(str(path))


# --- which one a machine is ---------------------------------------------------------------------

KRYO_PARTS = frozenset({"41:d44", "41:d41", "41:d05"})


def recognised(**found: object) -> list[tuple[str, bool]]:
    matches = detect_targets(machine("aarch64", **found), known_targets().values())
    return [(match.target.name, match.is_certain) for match in matches]


def test_a_snapdragon_by_its_cores() -> None:
    """An Exynos 2100 has the same ones."""
    both = [(KRYO, False), ("snapdragon-888-adreno", False)]
    assert recognised(core_parts=KRYO_PARTS) == both
    assert recognised(core_parts=KRYO_PARTS - {"41:d44"}) == []
    assert recognised(core_parts=KRYO_PARTS | {"41:d80"}) == []


@pytest.mark.parametrize("name", ["Qualcomm Technologies, Inc SM8350", "qcom,sm8350", "Lahaina"])
def test_a_snapdragon_by_its_name(name: str) -> None:
    assert recognised(names=(name,))[0] == (KRYO, True)


def test_an_orin_by_its_device_tree() -> None:
    names = ("NVIDIA Jetson AGX Orin Developer Kit", "nvidia,p3737-0000+p3701-0000")
    assert recognised(names=names) == [("jetson-orin", True)]
    assert recognised(names=("nvidia,tegra194",)) == []


def test_an_x86_is_none_of_them() -> None:
    found = machine("x86_64", names=("qcom,sm8350",), core_parts=KRYO_PARTS)
    assert detect_targets(found, known_targets().values()) == []
