"""From a store's URL to its files."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from mvlm.compile.jobs.store.files import Files
from mvlm.compile.jobs.store.local_files import LocalFiles
from mvlm.compile.jobs.store.remote_files import RemoteFiles
from mvlm.runtime.errors import UsageError

_FIX = "`--store file:///srv/mvlm`, or any URL that fsspec reaches: s3://bucket/mvlm."


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
