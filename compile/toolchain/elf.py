"""What ELF files say of themselves: what they need of the device that loads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from mvlm.runtime.artifact.verify import version_numbers

_GLIBC = "GLIBC_"


@dataclass(frozen=True)
class LibraryNeeds:
    """What a shared library needs of the system that loads it.

    Attributes:
        libraries: Those that it names.
        symbols: What it takes from them, but for what may be absent.
        glibc: The newest version of glibc that it asks for, as ``2.28``; None without any.
        page_bytes: The largest page that its segments are aligned to.
    """

    libraries: tuple[str, ...]
    symbols: frozenset[str]
    glibc: str | None
    page_bytes: int


def library_needs(path: Path) -> LibraryNeeds:
    """Read a shared library that we have made, or that came with a package."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        dynamic = elf.get_section_by_name(".dynamic")
        libraries = tuple(tag.needed for tag in dynamic.iter_tags("DT_NEEDED"))
        return LibraryNeeds(
            libraries=libraries,
            symbols=frozenset(_undefined(elf, ".dynsym")),
            glibc=_newest_glibc(elf),
            page_bytes=min(each["p_align"] for each in elf.iter_segments("PT_LOAD")),
        )


def undefined_symbols(objects: Sequence[Path]) -> set[str]:
    """Return what object files call and none of them defines."""
    undefined: set[str] = set()
    defined: set[str] = set()
    for path in objects:
        with path.open("rb") as file:
            elf = ELFFile(file)
            undefined |= set(_undefined(elf, ".symtab"))
            symbols = elf.get_section_by_name(".symtab").iter_symbols()
            defined |= {symbol.name for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF"}
    return undefined - defined


def _undefined(elf: ELFFile, table: str) -> Iterable[str]:
    for symbol in elf.get_section_by_name(table).iter_symbols():
        is_needed = symbol["st_info"]["bind"] == "STB_GLOBAL"
        if symbol.name and is_needed and symbol["st_shndx"] == "SHN_UNDEF":
            yield symbol.name


def _newest_glibc(elf: ELFFile) -> str | None:
    section = elf.get_section_by_name(".gnu.version_r")
    if section is None:
        return None
    names = (each.name for _, versions in section.iter_versions() for each in versions)
    numbers = [name.removeprefix(_GLIBC) for name in names if name.startswith(_GLIBC)]
    dotted = [number for number in numbers if number[0].isdigit()]  # not GLIBC_PRIVATE
    return max(dotted, key=version_numbers, default=None)
