"""Names for folders of which several may have the same one, as training runs' checkpoints do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
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
