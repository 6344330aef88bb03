"""The tools that can be compared, what installs them, and what they can do. Imports none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

from mvlm.runtime.errors import MvlmError, UsageError

OURS = "mvlm"


@dataclass(frozen=True)
class Peer:
    """One tool.

    Attributes:
        name: On the command line and in tables.
        module: The file that runs it.
        extra: The extra of this package that installs it.
        packages: The distributions that have to be there.
        stored: How it keeps the decoder's weights, in words for a table.
        has_vision: Whether it can encode images.
        note: What else a user should know of its installation.
    """

    name: str
    module: str
    extra: str
    packages: tuple[str, ...]
    stored: str
    has_vision: bool
    note: str = ""

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install 'mvlm[{self.extra}]'"

    def require(self) -> None:
        """Raise MvlmError where the tool is not installed."""
        missing = [name for name in self.packages if not _is_installed(name)]
        if missing:
            raise MvlmError(
                f"{self.name} is not installed",
                expected="the packages " + ", ".join(self.packages),
                found="no " + ", ".join(missing),
                fix=f"`{self.install}`" + (f" ({self.note})" if self.note else ""),
            )


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "llama.cpp",
            "mvlm.bench.peers.llamacpp",
            "llama-cpp",
            ("llama-cpp-python", "gguf"),
            "Q4_0, f16 mmproj",
            has_vision=True,
            note="it is built from source, which takes a C++ compiler and minutes",
        ),
        Peer(
            "ik_llama.cpp",
            "mvlm.bench.peers.ik_llamacpp",
            "ik-llama-cpp",
            ("ik-llama-cpp-python", "gguf"),
            "IQ4_KS, output head Q6_K",
            has_vision=False,
            note="for a CPU with more than AVX2, `make bench-peers` builds it, which takes a C++ "
            "compiler and many minutes",
        ),
        Peer(
            "onnxruntime-genai",
            "mvlm.bench.peers.ort_genai",
            "onnxruntime-genai",
            ("onnxruntime-genai", "onnx-ir", "transformers"),
            "int4, block 32, accuracy level 4",
            has_vision=False,
            note="it needs Python 3.11 or newer",
        ),
        Peer(
            "openvino-genai",
            "mvlm.bench.peers.ov_genai",
            "openvino-genai",
            ("openvino-genai", "openvino", "optimum-intel", "nncf"),
            "int4, groups of 32",
            has_vision=False,
        ),
        Peer(
            "torch",
            "mvlm.bench.peers.pytorch",
            "torch",
            ("torch", "transformers"),
            "float32",
            has_vision=True,
        ),
    )
}


def find_peers(names: Iterable[str]) -> tuple[Peer, ...]:
    """Return the tools of these names, each once, in the order in which they are named.

    Raises:
        UsageError: A name is unknown.
        MvlmError: A tool is not installed.
    """
    found = {}
    for name in names:
        if name not in PEERS:
            raise UsageError("--peer", expected=" or ".join(PEERS), found=repr(name))
        found[name] = PEERS[name]
    for peer in found.values():
        peer.require()
    return tuple(found.values())


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
