"""The documentation refers to what exists: its links, and the terms of the glossary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
GLOSSARY = ROOT / "docs" / "glossary.md"

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| `([^`|]+)` \|$", re.MULTILINE)


def headings(page: Path) -> set[str]:
    """Return a page's headings as the fragments of links to them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        name, _, fragment = link.partition("#")
        if "://" in name:
            continue
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (fragment and fragment not in headings(path)):
            broken.append(link)
    assert broken == []


def test_the_glossary_is_sorted_and_short() -> None:
    rows = _ROW.findall(GLOSSARY.read_text(encoding="utf-8"))
    terms = [term for term, _, _ in rows]
    assert len(terms) > 30 and terms == sorted(set(terms))
    assert [meaning for _, meaning, _ in rows if len(meaning.split()) > 5] == []


def test_the_code_uses_each_term_of_the_glossary() -> None:
    rows = _ROW.findall(GLOSSARY.read_text(encoding="utf-8"))
    unused = []
    for term, _, path in rows:
        text = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""
        words = r"[\s_]*".join(map(re.escape, term.split()))
        if not re.search(words, text, re.IGNORECASE):
            unused.append((term, path))
    assert unused == []
