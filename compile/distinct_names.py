"""Names for folders of which several may have the same one, as training runs' checkpoints do.

The artifacts of several adapters go into folders of such names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from mvlm.runtime.errors import UsageError


def distinct_names(folders: Iterable[Path]) -> dict[Path, str]:
    """Name folders by their last part, and by parents before it where two have the same.

    ``runs/a/checkpoint-500`` and ``runs/b/checkpoint-500`` become ``a-checkpoint-500`` and
    ``b-checkpoint-500``. The order does not matter.

    Args:
        folders: Any paths; the same one may come several times.

    Returns:
        A name for each resolved path.

    Raises:
        UsageError: Two names are the same with all parents in them.
    """
    parts = {path: path.parts[1:] for path in (folder.resolve() for folder in folders)}
    depths = dict.fromkeys(parts, 1)
    while True:
        names = {path: "-".join(parts[path][-depth:]) for path, depth in depths.items()}
        counts = Counter(names.values())
        same = [path for path, name in names.items() if counts[name] > 1]
        if not same:
            return names
        longer = [path for path in same if depths[path] < len(parts[path])]
        if not longer:
            raise UsageError(
                "two folders would have the same name",
                expected="names of their own",
                found=" and ".join(map(str, sorted(same))),
                fix="Rename one of them.",
            )
        for path in longer:
            depths[path] += 1


def adapter_places(adapters: Sequence[Path], output: Path | None) -> list[Path | None]:
    """Say where the artifact of each adapter goes.

    Args:
        adapters: Their folders; none for the checkpoint as it is.
        output: Where the artifact goes, or below which those of several adapters go, each in a
            folder of its name (:func:`distinct_names`); None for places in the cache.

    Returns:
        A place for each adapter, or one without any; None for a place in the cache.

    Raises:
        UsageError: An adapter is given twice.
    """
    folders = [adapter.resolve() for adapter in adapters]
    twice = {str(given) for given, n in Counter(folders).items() if n > 1}
    if twice:
        raise UsageError("--lora", expected="each adapter once", found=f"{sorted(twice)[0]} twice")
    if len(folders) < 2 or output is None:
        return [output] * max(1, len(folders))
    names = distinct_names(folders)
    return [output / names[folder] for folder in folders]
