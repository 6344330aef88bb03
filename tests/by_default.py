"""The families of models that are tested by default; the others are, with `make test-extended`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.reference import FAMILIES

# With the sharded V2 of `tests/models/test_parity.py`: every projector, grouped and whole heads,
# both GELUs, models with and without a tower, both kinds of tokenizers.
DEFAULT = {"ldpnet", "linear", "mlp2x_gelu", "text"}


def families(names: Iterable[str] = FAMILIES) -> list[pytest.ParameterSet]:
    """Return families as parameters of a test."""
    return [
        pytest.param(name, marks=() if name in DEFAULT else pytest.mark.extended) for name in names
    ]
