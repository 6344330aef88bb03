"""Draws the folders' layers from the imports of their modules, for docs/architecture.md.

``python docs/draw_layers.py`` writes the picture into the page; ``make docs`` runs it. Every import
counts, those inside functions and those for types alone as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
FOLDERS = tuple(sorted(path.parent.name for path in ROOT.glob("*/py.typed")))
# The packages from outside that a layer may or may not import.
_OUTSIDE = ("tvm", "tvm_ffi", "torch")
_BEGIN, _END = "<!-- drawn by docs/draw_layers.py -->\n", "<!-- end of the drawing -->\n"


def imported_names(module: ast.Module) -> Iterator[str]:
    """Yield the dotted names of all that a module imports, wherever in it the imports stand."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports_of_modules() -> dict[Path, frozenset[str]]:
    """Return what each module imports, by dotted names; all are parsed once in a process."""
    return {
        path: frozenset(imported_names(ast.parse(path.read_text(encoding="utf-8"))))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }


def read_imports() -> dict[str, set[str]]:
    """Return what each folder imports: other folders, and tvm, tvm_ffi and torch."""
    known = {*FOLDERS, *_OUTSIDE}
    imports: dict[str, set[str]] = {folder: set() for folder in FOLDERS}
    for path, names in imports_of_modules().items():
        folder = path.relative_to(ROOT).parts[0]
        imports[folder] |= ({_layer(name) for name in names} & known) - {folder}
    return imports


def draw_layers(imports: Mapping[str, set[str]]) -> str:
    """Return a line for each folder, which stands above all that it imports.

    Args:
        imports: What each folder imports.

    Raises:
        graphlib.CycleError: Folders import each other in a circle.
    """
    inner = {folder: names - {*_OUTSIDE} for folder, names in imports.items()}
    levels: dict[str, int] = {}
    for folder in TopologicalSorter(inner).static_order():
        levels[folder] = 1 + max((levels[name] for name in inner[folder]), default=0)

    def by_level(names: set[str]) -> list[str]:
        return sorted(names, key=lambda name: (-levels[name], name))

    width = max(map(len, levels))
    within = {folder: ", ".join(by_level(names)) for folder, names in inner.items()}
    column = max(map(len, within.values()))
    lines = []
    for folder in by_level(set(levels)):
        outside = ", ".join(name for name in _OUTSIDE if name in imports[folder])
        arrow = "──▶" if imports[folder] else "   "
        line = f"{levels[folder]}  {folder:{width}} {arrow} {within[folder]:{column}}   {outside}"
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def redraw(page: str) -> str:
    """Return the page with the picture of today's imports.

    Raises:
        ValueError: The page has no place for it.
    """
    picture = f"{_BEGIN}```\n{draw_layers(read_imports())}```\n{_END}"
    drawn, count = re.subn(
        re.escape(_BEGIN) + ".*?" + re.escape(_END), lambda _: picture, page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"the page has {count} places for the picture, not one")
    return drawn


def _layer(name: str) -> str:
    """Return what an import belongs to: a folder of ours, else the top package."""
    top, _, rest = name.partition(".")
    return rest.partition(".")[0] if top == "mvlm" else top


if __name__ == "__main__":
    PAGE.write_text(redraw(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
