"""Prints the oldest versions that pyproject.toml allows, as pip's constraints: `make test-oldest`.

Each requirement with a lower bound, of the package and of all its extras, is held to that bound.
What those packages need in turn is left to pip.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def oldest_versions(project: Path = PROJECT) -> list[str]:
    """Return a line of constraints for each requirement that has a lower bound."""
    return sorted({line for each in _requirements(project) for line in _constraint(each)})


def _requirements(project: Path) -> Iterator[Requirement]:
    table = tomllib.loads(project.read_text())["project"]
    for group in (table["dependencies"], *table["optional-dependencies"].values()):
        yield from map(Requirement, group)


def _constraint(requirement: Requirement) -> Iterator[str]:
    marker = f"; {requirement.marker}" if requirement.marker else ""
    for bound in requirement.specifier:
        if bound.operator == ">=":
            yield f"{requirement.name}=={bound.version}{marker}"


if __name__ == "__main__":
    print("\n".join(oldest_versions()))
