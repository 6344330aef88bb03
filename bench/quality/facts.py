"""In what circumstances the tables were measured: machine, versions, text."""

from __future__ import annotations

from importlib import metadata

from mvlm.bench.peers.catalogue import PEERS
from mvlm.bench.quality.ggml import IK_LLAMA_CPP, LLAMA_CPP
from mvlm.bench.quality.texts import LENGTH, SEQUENCES
from mvlm.bench.quality.wheels import GENSIM, SMOLLM2
from mvlm.runtime.machine import read_machine

_OURS = ("apache-tvm", "torch", "transformers")


def facts(threads: int) -> str:
    """Return them as Markdown.

    Args:
        threads: For all tools.
    """
    peers = [PEERS[name].packages[0] for name in (LLAMA_CPP, IK_LLAMA_CPP)]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in (*peers, *_OURS))
    return (
        f"- Machine: {read_machine().cpu}, {threads} threads. Versions: {versions}.\n"
        f"- Model: `{SMOLLM2.requirement}`, in float32. Text: the first {SEQUENCES} x {LENGTH} "
        f"tokens of the Lee corpus in `{GENSIM.requirement}`.\n"
    )
