"""Where the vision tower of a checkpoint lies.

A MobileVLM checkpoint only names its CLIP, usually as a Hugging Face id. Nothing is downloaded
here: the folder has to be on this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mvlm.runtime.errors import ConfigError, UsageError
from mvlm.runtime.input_file import is_present

# What the tower's tensors begin with inside a MobileVLM V2 checkpoint.
V2_TOWER_PREFIX = "model.vision_tower.vision_tower.vision_model."

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def find_vision_tower(folder: Path, name: str, vision_tower: Path | None = None) -> Path:
    """Find the folder of a CLIP: one with a `config.json`.

    Tried in this order: `vision_tower`; `name` as an absolute path; relative to the checkpoint's
    folder; a folder next to the checkpoint that is called as the last part of `name`; the
    Hugging Face hub's cache (`HF_HUB_CACHE`, `HF_HOME`).

    Args:
        folder: The checkpoint.
        name: Its `mm_vision_tower`.
        vision_tower: The user's choice, which must be right.

    Raises:
        UsageError: `vision_tower` is not such a folder.
        ConfigError: None was found; names the places. Or one of them is a link that leads nowhere.
    """
    place = search_vision_tower(folder, name, vision_tower)
    if place is None:
        raise ConfigError(
            f"the vision tower `{name}` of {folder} is not on this machine",
            expected="its folder at " + " or ".join(map(str, _places(folder, name))),
            fix="Download it, or say where it is: `--vision-tower DIR`; in a matrix, "
            "`vision_tower`.",
        )
    return place


def search_vision_tower(folder: Path, name: str, vision_tower: Path | None = None) -> Path | None:
    """Like :func:`find_vision_tower`, but None where no folder was found."""
    if vision_tower is not None:
        if not _is_tower(vision_tower):
            raise UsageError(
                f"`--vision-tower {vision_tower}` is not the folder of a CLIP",
                expected="a folder with a config.json",
            )
        return vision_tower
    hub = _hub_cache()
    for place in _places(folder, name):
        # A cache on an absent disk is no reason to refuse a model that has its tower inside.
        is_reachable = not place.is_relative_to(hub) or _is_folder(hub)
        if is_reachable and _is_tower(place):
            return place
    return None


def _is_folder(place: Path) -> bool:
    """Whether a folder is there; another user's, into which we may not look, is not."""
    try:
        return place.is_dir()
    except PermissionError:
        return False


def _is_tower(place: Path) -> bool:
    return is_present(place / "config.json", ConfigError)


def _places(folder: Path, name: str) -> Iterator[Path]:
    if Path(name).is_absolute():
        yield Path(name)
    else:
        yield folder / name
    last = Path(name).name
    if last not in ("", ".."):
        # resolve() because the checkpoint may be given as "." and so have no parent to look in.
        yield folder.resolve().parent / last
    if _HUB_ID.fullmatch(name):
        yield _hub_snapshot(name)


def _hub_snapshot(name: str) -> Path:
    """The snapshot that the hub's cache keeps for the branch `main`, whether it is there or not."""
    repository = _hub_cache() / ("models--" + name.replace("/", "--"))
    try:
        commit = (repository / "refs" / "main").read_text()[:64].strip()
    except (OSError, UnicodeDecodeError):
        commit = ""
    if _COMMIT.fullmatch(commit):
        return repository / "snapshots" / commit
    snapshots = sorted((repository / "snapshots").glob("*/config.json"))
    return snapshots[0].parent if snapshots else repository


def _hub_cache() -> Path:
    if cache := os.environ.get("HF_HUB_CACHE"):
        return _expanded(cache)
    if home := os.environ.get("HF_HOME"):
        return _expanded(home) / "hub"
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface/hub"


def _expanded(path: str) -> Path:
    """Return a path of the hub's; its ``~`` stays where there is no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
