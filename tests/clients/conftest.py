"""Programs that people have already, as clients of our server.

They are installed apart from everything else by ``make test-chat``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.server.conftest import serve as serve
from tests.runtime.server.conftest import server as server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def client_programs() -> Path:
    """The folder of the clients' commands."""
    return found(ROOT / ".venv-clients" / "bin")


@pytest.fixture(scope="session")
def node_packages() -> Path:
    """The folder of the npm packages."""
    return found(ROOT / "build" / "clients")


def found(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(f"no {path}: make test-chat installs it")
    return path
