"""Stub libraries: empty ones that replace a device's own while code is linked for it.

A linker records which library defines each symbol that the code calls, so it has to see the
libraries. A stub has the name and the symbols of the device's library: nothing of it but its name
goes into the result. An Android NDK links in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvlm.compile.toolchain.elf import undefined_symbols

if TYPE_CHECKING:
    from mvlm.compile.toolchain.linker import Linker

# C99's functions in libm that LLVM may call, of float64 or, with an f behind them, of float32.
_MATHEMATICS = re.compile(
    r"(a?(cos|sin|tan)h?|atan2|sincos|exp2?|expm1|log(2|10|1p|b)?|pow|sqrt|cbrt|hypot|erfc?"
    r"|[lt]gamma|ceil|floor|trunc|round|rint|nearbyint|l?l(rint|round)|f(abs|dim|ma|max|min|mod)"
    r"|remainder|copysign|nextafter|frexp|ldexp|modf|scalbn)f?"
)


# By the names that Android's loader knows; what no other has is in libc.
_TVM = {
    "libtvm_ffi.so": lambda symbol: symbol.startswith("TVMFFI"),
    "libtvm_runtime.so": lambda symbol: symbol.startswith("TVM"),
}
_ANDROID = _TVM | {
    "libm.so": lambda symbol: _MATHEMATICS.fullmatch(symbol) is not None,
    "libc.so": lambda symbol: True,
}


def tvm_stub_libraries(linker: Linker, objects: Sequence[Path], folder: Path) -> list[Path]:
    """Make stubs of TVM's libraries, for a linker that has all others."""
    return _make(linker, objects, folder, _TVM)


def android_stub_libraries(linker: Linker, objects: Sequence[Path], folder: Path) -> list[Path]:
    """Make stubs of TVM's libraries and Android's."""
    return _make(linker, objects, folder, _ANDROID)


def _make(
    linker: Linker,
    objects: Sequence[Path],
    folder: Path,
    libraries: dict[str, Callable[[str], bool]],
) -> list[Path]:
    wanted = undefined_symbols(objects)
    made = []
    for name, has in libraries.items():
        symbols = sorted(symbol for symbol in wanted if has(symbol))
        wanted -= set(symbols)
        source, library = folder / f"{name}.c", folder / name
        source.write_text("".join(f"void {symbol}(void) {{}}\n" for symbol in symbols))
        options = ("-w", "-fno-builtin", "-nostdlib", "-shared", f"-Wl,-soname,{name}")
        linker.run(f"making a stub of {name}", *options, "-o", library, source)
        made.append(library)
    return made
