"""Each part of the project that knows projectors knows all kinds."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from mvlm.models.checkpoint.names import PROJECTOR_TENSORS
from mvlm.models.config.projector import KINDS, parse_projector_type
from mvlm.models.interchange import onnx_vision
from mvlm.models.projectors import PROJECTORS
from tests.by_default import DEFAULT
from tests.reference import FAMILIES


@pytest.mark.parametrize(
    ("known", "where"),
    [
        (PROJECTORS, "models/projectors/__init__.py"),
        (PROJECTOR_TENSORS, "models/checkpoint/names.py"),
        (onnx_vision.PROJECTORS, "models/interchange/onnx_vision.py"),
    ],
)
def test_every_kind_is_known(known: Collection[str], where: str) -> None:
    assert sorted(known) == sorted(KINDS), f"{where} must list every kind of projector"


def test_every_kind_is_tested_by_default() -> None:
    # The sharded checkpoint of test_parity.py is a V2's, outside the families.
    kinds = [FAMILIES[name].projector for name in DEFAULT if FAMILIES[name].projector is not None]
    tested = {parse_projector_type(name)[0] for name in kinds} | {"ldpnetv2"}
    assert tested == set(KINDS), "add a family of it to DEFAULT of tests/by_default.py"
