"""Systems that compiled code runs on: whose C library it is linked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Platform:
    """A system.

    Attributes:
        name: On the command line, and in an artifact.
        triple: The end of LLVM's triple.
    """

    name: str
    triple: str

    def triple_for(self, architecture: str) -> str:
        """Return LLVM's triple: ``aarch64-linux-gnu``."""
        return f"{architecture}-{self.triple}"


PLATFORMS = {
    platform.name: platform
    for platform in (
        Platform("linux", "linux-gnu"),
        Platform("android", "linux-android"),
    )
}
