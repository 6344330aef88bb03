"""A store as a whole: results that are there, that are added, and that are fetched."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from mvlm.compile.jobs.errors import DamagedError
from mvlm.compile.jobs.store.blobs import Blobs
from mvlm.compile.jobs.store.files import Files
from mvlm.compile.jobs.store.leases import Leases
from mvlm.compile.jobs.store.local_files import LocalFiles
from mvlm.compile.jobs.store.remote_files import RemoteFiles
from mvlm.compile.jobs.store.results import (
    MAX_RESULT_BYTES,
    ArtifactResult,
    WeightsResult,
    parse_artifact,
    parse_weights,
)
from mvlm.compile.jobs.store.runs import Runs
from mvlm.runtime.artifact.layout import MANIFEST
from mvlm.runtime.artifact.manifest import FileEntry
from mvlm.runtime.artifact.staging import atomic_directory
from mvlm.runtime.errors import ArtifactError, UsageError

_FIX = "`--store file:///srv/mvlm`, or any URL that fsspec reaches: s3://bucket/mvlm."
_FOLDERS = {"artifact": "artifacts", "weights": "weights"}


class Store:
    """One store.

    Args:
        files: Its files.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        self.blobs = Blobs(files)
        self.runs = Runs(files)

    def leases(self, run_id: str) -> Leases:
        """Return the leases of a run."""
        return Leases(self.files, run_id)

    def artifact(self, key: str) -> ArtifactResult | None:
        """Return a finished artifact's document, or None; its files are not looked at.

        Raises:
            ArtifactError: The document breaks the format.
        """
        data = self._read("artifact", key)
        return None if data is None else parse_artifact(data, key, self._where("artifact", key))

    def weights(self, key: str) -> WeightsResult | None:
        """Return the document of packed weights; as :meth:`artifact`."""
        data = self._read("weights", key)
        return None if data is None else parse_weights(data, key, self._where("weights", key))

    def find_complete(
        self, kind: str, key: str, *, verify: bool = False
    ) -> ArtifactResult | WeightsResult | None:
        """Return a step's result if its document and all of its files are in the store, else None.

        A document that is damaged, or that lacks a file, is removed: the step is done again.

        Args:
            kind: ``artifact`` or ``weights``.
            key: The step's.
            verify: Read the files and compare their digests, too.
        """
        try:
            found = self.artifact(key) if kind == "artifact" else self.weights(key)
            if found is None:
                return None
            if all(map(self.blobs.has, found.files)):
                if verify:
                    self.blobs.check(found.files)
                return found
        except (ArtifactError, DamagedError):
            pass
        self.forget(kind, key)
        return None

    def forget(self, kind: str, key: str) -> None:
        """Remove a result's document; its files stay, because other results may share them."""
        self.files.remove(f"{_FOLDERS[kind]}/{key}.json")

    def add(self, result: ArtifactResult | WeightsResult, folder: Path) -> None:
        """Add a finished step: its files first, then the document that says that it is whole.

        Args:
            result: The step's result.
            folder: Where its files lie.
        """
        for entry in result.files:
            self.blobs.put(folder / entry.path, entry)
        kind = "artifact" if isinstance(result, ArtifactResult) else "weights"
        # Where another one was faster, its result is as good.
        self.files.create(f"{_FOLDERS[kind]}/{result.key}.json", result.to_bytes())

    def fetch_files(self, entries: Iterable[FileEntry], folder: Path, *, linked: bool) -> None:
        """Copy files from the store into a folder, and check each.

        Args:
            entries: The files; their paths lie within the folder, as :class:`FileEntry` asks.
            folder: Where they go.
            linked: Whether they will only be read there.

        Raises:
            DamagedError: One is missing or damaged.
        """
        for entry in entries:
            (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
            self.blobs.get(entry, folder / entry.path, linked=linked)

    def fetch(self, result: ArtifactResult, output: Path) -> None:
        """Write an artifact's folder, whole or not at all.

        Raises:
            DamagedError: A file is missing or damaged.
            UsageError: Something else than an artifact lies at `output`.
            ArtifactError: It cannot be written.
        """
        with atomic_directory(output) as folder:
            self.fetch_files(result.files, folder, linked=False)
            (folder / MANIFEST).write_bytes(result.manifest.to_bytes())

    def gc(self) -> None:
        """Remove the temporary files of processes of this machine that were killed."""
        if isinstance(self.files, LocalFiles):
            self.files.gc()

    def _read(self, kind: str, key: str) -> bytes | None:
        return self.files.read(f"{_FOLDERS[kind]}/{key}.json", MAX_RESULT_BYTES)

    def _where(self, kind: str, key: str) -> str:
        return f"{self.files.url}/{_FOLDERS[kind]}/{key}.json"


def open_store(url: str) -> Store:
    """Open a store; nothing is read or written.

    Args:
        url: A folder, or a URL that fsspec reaches.

    Raises:
        UsageError: It cannot be reached from here.
    """
    return Store(open_files(url))


def open_files(url: str) -> Files:
    """Open a store; nothing is read or written.

    Args:
        url: A folder, or a URL.

    Raises:
        UsageError: It is no URL that can be reached from here; says what to install.
    """
    scheme, found, _ = url.partition("://")
    if not found or scheme in ("file", "local"):
        return LocalFiles(_folder(url) if found else Path(url))
    try:
        import fsspec
    except ModuleNotFoundError:
        raise UsageError(
            f"the store {url} takes fsspec", found="none", fix="`pip install 'mvlm[compile]'`"
        ) from None
    try:
        system, prefix = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise UsageError(f"the store {url}", found=str(error)[:200], fix=_FIX) from None
    return RemoteFiles(url, system, prefix)


def _folder(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise UsageError(f"the store {url}", expected="file:///FOLDER", found=url, fix=_FIX)
    return Path(os.fsdecode(unquote_to_bytes(os.fsencode(parts.path))))
