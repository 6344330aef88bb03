"""Checks that an artifact is whole and belongs on this machine, before any of its code runs."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from mvlm.runtime.artifact.layout import MANIFEST
from mvlm.runtime.artifact.manifest import FileEntry, Manifest, read_manifest
from mvlm.runtime.artifact.target_entry import Requirements
from mvlm.runtime.artifact.weights import drop_small_pages, read_into_cache
from mvlm.runtime.errors import ArtifactError, ModelMemoryError
from mvlm.runtime.machine import Machine, read_machine

# The TVM whose runtime this package knows how to call.
TVM_VERSION = "0.27.0.post1"

_AGAIN = "Fetch or compile the artifact again."
# What a machine calls the C library of each system that code is compiled for.
_LIBC_NAMES = {"linux": "glibc", "android": "api"}
_BLOCK_BYTES = 1 << 20


def verify_artifact(folder: Path, machine: Machine | None = None) -> Manifest:
    """Check an artifact from its manifest to its last byte, and that it can run here.

    Raises:
        ArtifactError: It is damaged, incomplete, for another machine or for other versions.
    """
    manifest = read_manifest(folder)
    check_machine(manifest, machine or read_machine())
    check_abi(manifest)
    verify_files(folder, manifest)
    return manifest


def check_machine(manifest: Manifest, machine: Machine) -> None:
    """Refuse code for a device or a system that this machine does not have.

    Raises:
        ArtifactError: Names both sides.
    """
    target = manifest.target
    for requirements in target.device.requires.values():
        requirements.check(machine, target.name)
    _check_system(target.requirements, machine)


def _check_system(requirements: Requirements, machine: Machine) -> None:
    if requirements.platform != machine.platform:
        raise ArtifactError(
            "the artifact is for another system",
            expected=f"{machine.platform} (this machine)",
            found=requirements.platform,
            fix=f"Compile it with `--platform {machine.platform}`.",
        )
    name = _LIBC_NAMES.get(requirements.platform, "")
    kind, _, version = machine.libc.partition(" ")
    if kind != name or version_numbers(version) < version_numbers(requirements.libc):
        raise ArtifactError(
            "the system's C library is too old for the artifact, or another one",
            expected=f"{name} {requirements.libc} or newer",
            found=machine.libc or "another C library",
            fix="Update the system, or compile the artifact for an older one: a description of the "
            "device (`mvlm targets --example`) says which in its table [needs].",
        )
    if requirements.page_bytes < machine.page_bytes:
        raise ArtifactError(
            "the artifact is not linked for this machine's pages of memory",
            expected=f"{machine.page_bytes} bytes a page",
            found=f"{requirements.page_bytes} at the most",
            fix="Compile it again with a larger `page_bytes` in the device's description.",
        )


def version_numbers(version: str) -> tuple[int, ...]:
    """Return what versions are compared by; nothing if it is none."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def check_memory(manifest: Manifest, available: int | None) -> None:
    """Refuse a model that would put the machine to swapping, or be killed.

    Args:
        manifest: The artifact's.
        available: Bytes that this process may still take, or None where nothing says so.

    Raises:
        ModelMemoryError: Says how much is needed and how much is free.
    """
    needed = manifest.target.requirements.memory_bytes
    if available is not None and available < needed:
        raise ModelMemoryError(
            "there is too little memory for the model",
            expected=f"{needed / 1e9:.2f} GB free for its weights and working memory",
            found=f"{available / 1e9:.2f} GB",
            fix="Close other programs, or compile a smaller model or fewer bits for this device.",
        )


def check_abi(manifest: Manifest) -> None:
    """Refuse code that was compiled for another version of the runtime's interface.

    Raises:
        ArtifactError: Names both versions.
    """
    if manifest.abi.tvm != TVM_VERSION:
        raise ArtifactError(
            "the artifact was compiled by another TVM",
            expected=f"{TVM_VERSION} (what this mvlm runs)",
            found=manifest.abi.tvm,
            fix="Compile it again with this mvlm, or install the mvlm that made it.",
        )
    installed = metadata.version("apache-tvm-ffi")
    if manifest.abi.tvm_ffi != installed:
        raise ArtifactError(
            "the artifact was compiled for another apache-tvm-ffi",
            expected=manifest.abi.tvm_ffi,
            found=f"{installed} (installed)",
            fix=f"`pip install apache-tvm-ffi=={manifest.abi.tvm_ffi}`, or compile it again.",
        )


def verify_files(
    folder: Path, manifest: Manifest, progress: Callable[[int], None] | None = None
) -> None:
    """Compare every file with its entry, and refuse files without one.

    Files are read on as many threads as there are cores: hashing is what takes the time.

    Args:
        folder: The artifact.
        manifest: What should be in it.
        progress: Called with the bytes of each block read, by any of the threads.

    Raises:
        ArtifactError: Names the first file that differs, is absent, or is not in the manifest.
    """
    expected = {MANIFEST, *(entry.path for entry in manifest.files)}
    for name in _files_within(folder):
        if name not in expected:
            raise ArtifactError(f"{folder / name} is not in the manifest", fix=_AGAIN)
    # The large ones first, so that none of them is left to one thread at the end.
    largest_first = sorted(manifest.files, key=lambda entry: -entry.size)
    files = {folder / entry.path: entry for entry in largest_first}
    for path, entry in files.items():
        _check_size(path, entry)
    drop_small_pages([*files])
    with ThreadPoolExecutor(read_machine().cores) as pool:
        checks = [
            pool.submit(_check_digest, path, entry, progress) for path, entry in files.items()
        ]
        try:
            for check in checks:
                check.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _files_within(folder: Path) -> list[str]:
    """List the files below `folder`; a link could lead anywhere, so it is an unexpected file."""
    found = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        found += [(Path(parent) / name).relative_to(folder).as_posix() for name in files + links]
    return found


def _check_size(path: Path, entry: FileEntry) -> None:
    try:
        status = path.lstat()
    except OSError:
        raise ArtifactError(f"{path} is missing", fix=_AGAIN) from None
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(f"{path} is not a regular file", fix=_AGAIN)
    if status.st_size != entry.size:
        raise ArtifactError(
            f"{path} has the wrong size",
            expected=f"{entry.size} bytes",
            found=f"{status.st_size}",
            fix=_AGAIN,
        )


def _check_digest(path: Path, entry: FileEntry, progress: Callable[[int], None] | None) -> None:
    read_into_cache(path)
    digest = digest_file(path, progress)
    if digest != entry.sha256:
        raise ArtifactError(
            f"{path} is damaged",
            expected=f"sha256 {entry.sha256[:16]}...",
            found=f"{digest[:16]}...",
            fix=_AGAIN,
        )


def digest_file(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            if progress:
                progress(len(block))
    return digest.hexdigest()
