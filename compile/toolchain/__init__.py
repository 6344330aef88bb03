"""What a build machine needs beside the compiler: linkers, and the runtime's library per device."""

from mvlm.compile.toolchain.find import find_linker, linker_identity
from mvlm.compile.toolchain.linker import Linker
from mvlm.compile.toolchain.runtime_library import find_runtime_library

__all__ = ["Linker", "find_linker", "find_runtime_library", "linker_identity"]
