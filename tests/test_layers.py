"""The layers: the picture in docs/architecture.md, drawn from the imports, and no circles."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from docs.draw_layers import (
    FOLDERS,
    PAGE,
    ROOT,
    draw_layers,
    imports_of_modules,
    read_imports,
    redraw,
)


def test_the_page_has_the_picture_of_the_imports() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert redraw(page) == page, "run `make docs`"


def test_all_folders_are_drawn_and_the_runtime_is_the_lowest() -> None:
    imports = read_imports()
    lines = draw_layers(imports).splitlines()
    assert sorted(line.split()[1] for line in lines) == sorted(FOLDERS)
    assert imports["runtime"] == {"tvm_ffi"}
    assert imports["distribution"] == {"runtime"}


def test_a_folder_stands_above_all_that_it_imports() -> None:
    imports = {"low": set(), "middle": {"low", "tvm"}, "high": {"middle", "low"}}
    assert draw_layers(imports).splitlines() == [
        "3  high   ──▶ middle, low",
        "2  middle ──▶ low           tvm",
        "1  low",
    ]


def test_a_circle_is_refused() -> None:
    with pytest.raises(CycleError):
        draw_layers({"one": {"other"}, "other": {"one"}})


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="0 places"):
        redraw("# Architecture\n")


def test_no_modules_import_each_other_in_a_circle() -> None:
    # import-linter compares siblings alone: a module that imports its own package would escape it.
    imports = {_module_name(path): names for path, names in imports_of_modules().items()}
    graph: dict[str, set[str]] = {}
    for name, imported in imports.items():
        modules = {each if each in imports else each.rpartition(".")[0] for each in imported}
        graph[name] = (modules & imports.keys()) - {name}
    assert "mvlm.models.weight_files.open" in graph["mvlm.models.config.read"]
    TopologicalSorter(graph).prepare()


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("mvlm", *(part for part in parts if part != "__init__")))
