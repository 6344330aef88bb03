"""The constraints that `make test-oldest` installs by."""

from __future__ import annotations

from pathlib import Path

from tests.oldest import oldest_versions


def test_lower_bounds_of_the_package_and_of_its_extras(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project]\ndependencies = ["one>=2.1", "pinned==3", "any"]\n'
        "[project.optional-dependencies]\n"
        'extra = ["self[more]", "two>=4.50,<5", "three>=1; python_version < \'3.11\'"]\n'
    )
    assert oldest_versions(project) == [
        "one==2.1",
        'three==1; python_version < "3.11"',
        "two==4.50",
    ]
