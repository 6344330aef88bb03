"""Systems that compiled code runs on: whose C library it is linked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Platform:
    """A system.

    Attributes:
        name: On the command line, and in an artifact.
        triple: The end of LLVM's triple.
        libc: Its C library.
        libraries: What code is linked with, by the names that the device's loader knows.
    """

    name: str
    triple: str
    libc: str
    libraries: tuple[str, ...]

    def triple_for(self, architecture: str) -> str:
        """Return LLVM's triple: ``aarch64-linux-gnu``."""
        return f"{architecture}-{self.triple}"


PLATFORMS = {
    platform.name: platform
    for platform in (
        Platform("linux", "linux-gnu", "glibc", ("libm.so.6", "libc.so.6")),
        Platform("android", "linux-android", "bionic", ("libm.so", "libc.so")),
    )
}
