"""The model's files for each tool: kept in the cache, made when a tool first asks for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path

from mvlm.bench.peers.benchmark import Tool
from mvlm.bench.peers.catalogue import Peer
from mvlm.bench.peers.tool_process import ToolProcess
from mvlm.compile.cache_folder import ELSEWHERE, cache_folder
from mvlm.compile.job import CompileJob
from mvlm.compile.provenance import files_digest
from mvlm.models import interchange
from mvlm.runtime.artifact.staging import atomic_directory

# Writing and quantizing some gigabytes.
_TIMEOUT_SECONDS = 3600.0
_KEY_DIGITS = 16


def prepare_peer(
    peer: Peer,
    job: CompileJob,
    start: Callable[[str], ToolProcess] = ToolProcess,
    notice: Callable[[str], None] = lambda line: None,
) -> Tool:
    """Return a tool with its files, which are made if they are not in the cache.

    Args:
        peer: The tool.
        job: The checkpoint, as it would be compiled.
        start: Starts the process that makes the files.
        notice: Called with a line before that, because it takes minutes.

    Raises:
        PeerError: The tool cannot make them.
    """
    folder = cache_folder() / "peers" / f"{job.name}-{peer.name}-{_key(peer, job)}"
    if not folder.is_dir():
        notice(f"making {peer.name}'s files of {job.name}, once; they are kept in {folder}")
        with atomic_directory(folder, None, ELSEWHERE) as staging, start(peer.name) as child:
            child.ask(
                "prepare",
                _TIMEOUT_SECONDS,
                module=peer.module,
                checkpoint=str(job.checkpoint.resolve()),
                vision_tower=str(job.vision_tower.resolve()) if job.vision_tower else None,
                folder=str(staging),
            )
    return Tool(peer.name, peer.module, import_module(peer.module).files(folder), peer.has_vision)


def _key(peer: Peer, job: CompileJob) -> str:
    """Name everything that goes into the files: weights, converters, the tool's version."""
    versions = [f"{name}=={metadata.version(name)}" for name in peer.packages]
    sources = [Path(import_module(peer.module).__file__ or "")]
    sources += Path(interchange.__file__).parent.glob("*.py")
    place = str(job.checkpoint.resolve())
    parts = (job.checkpoint_digest(), place, files_digest(sources), *versions)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_KEY_DIGITS]
