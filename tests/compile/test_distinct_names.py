"""Names for folders that may have the same one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvlm.compile.distinct_names import adapter_places, distinct_names
from mvlm.runtime.errors import UsageError


def names(*paths: str) -> list[str]:
    """The names of folders below a root that is not there."""
    folders = [Path("/nowhere", path) for path in paths]
    found = distinct_names(folders)
    return [found[folder] for folder in folders]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["flowers"], ["flowers"]),
        (["a/x", "b/y"], ["x", "y"]),
        (["runs/a/x", "runs/b/x", "y"], ["a-x", "b-x", "y"]),
        (["a/run/x", "b/run/x", "b/x"], ["a-run-x", "b-run-x", "b-x"]),
        # A folder whose own name is what another one would be called.
        (["a/x", "b/x", "c/a-x"], ["nowhere-a-x", "b-x", "c-a-x"]),
    ],
)
def test_distinct_names_add_parents_where_needed(paths: list[str], expected: list[str]) -> None:
    assert names(*paths) == expected
    assert names(*reversed(paths)) == expected[::-1]


def test_distinct_names_where_parents_do_not_help() -> None:
    with pytest.raises(UsageError, match=r"two folders would have the same name.*Rename"):
        names("a/x", "b/x", "a-x")


@given(st.sets(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map("/".join)))
def test_names_are_distinct(paths: set[str]) -> None:
    assert len(set(names(*paths))) == len(paths)


def test_the_same_folder_has_one_name() -> None:
    assert distinct_names([Path("/nowhere/x"), Path("/nowhere/y/../x")]) == {
        Path("/nowhere/x"): "x"
    }


def test_artifact_folders_of_adapters() -> None:
    out, a, b = Path("out"), Path("/nowhere/a/x"), Path("/nowhere/b/x")
    assert adapter_places((), None) == [None]
    assert adapter_places((), out) == [out]
    assert adapter_places((a,), out) == [out]
    assert adapter_places((a, b), None) == [None, None]
    assert adapter_places((a, b), out) == [out / "a-x", out / "b-x"]
    with pytest.raises(UsageError, match=r"expected each adapter once, found /nowhere/a/x twice"):
        adapter_places((a, b, a), None)
