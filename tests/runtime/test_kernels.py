"""kernels.json: written and read, and refused where it breaks the format."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.runtime.artifact.kernels import (
    KernelTraffic,
    read_kernel_traffic,
    total_traffic,
    traffic_to_json,
)
from mvlm.runtime.artifact.layout import KERNELS, MAX_JSON_BYTES
from mvlm.runtime.errors import ArtifactError

LINEAR = KernelTraffic(3, 4096, 0, 64, 16, 32, 8, 0, 0)
ATTENTION = KernelTraffic(2, 0, 0, 4, 128, 0, 128, 240, 240)


def write(folder: Path, content: bytes) -> Path:
    (folder / KERNELS).parent.mkdir(exist_ok=True)
    (folder / KERNELS).write_bytes(content)
    return folder


def test_kernels_json_round_trip(tmp_path: Path) -> None:
    functions: dict[str, dict[str, KernelTraffic]] = {
        "decode": {"attention": ATTENTION, "linear_8x8": LINEAR},
        "projector": {},
    }
    written = json.dumps(traffic_to_json(functions)).encode()
    assert read_kernel_traffic(write(tmp_path, written)) == functions


def test_a_total_adds_each_kind() -> None:
    assert total_traffic([LINEAR, ATTENTION]) == KernelTraffic(
        5, 4096, 0, 68, 144, 32, 136, 240, 240
    )
    assert total_traffic([]) == KernelTraffic()


GOOD = asdict(LINEAR)
BAD_USES: dict[str, Any] = {
    "a count, as it was in schema 3": 3,
    "null": None,
    "a list": [1],
    "nothing": {},
    "a key missing": {key: value for key, value in GOOD.items() if key != "read_bytes"},
    "a number of text": GOOD | {"calls": "3"},
    "a number of bool": GOOD | {"calls": True},
    "a number of float": GOOD | {"weight_bytes": 4096.0},
    "a number of null": GOOD | {"written_bytes": None},
    "a negative number": GOOD | {"read_bytes_per_row": -1},
    "a number past 64 bits": GOOD | {"cache_read_bytes_per_position": 1 << 70},
    "a number that no float holds": GOOD | {"weight_bytes": 10**400},
}


@pytest.mark.parametrize("name", BAD_USES)
def test_bad_uses(tmp_path: Path, name: str) -> None:
    write(tmp_path, json.dumps({"decode": {"linear": BAD_USES[name]}}).encode())
    with pytest.raises(ArtifactError, match=r"kernels\.json"):
        read_kernel_traffic(tmp_path)


BAD_NAMES = ["", "a\nb", "\x1b[2J", "a b", "\ud800", "ä", "a" * 201]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:20])
def test_bad_names(tmp_path: Path, name: str) -> None:
    """Names are printed in a table on a terminal."""
    for functions in ({name: {}}, {"decode": {name: GOOD}}):
        write(tmp_path, json.dumps(functions).encode())
        with pytest.raises(ArtifactError, match=r"kernels\.json.*names of letters"):
            read_kernel_traffic(tmp_path)


BAD_FILES = {
    "nothing": b"",
    "a list": b"[]",
    "functions of a list": b'{"decode": []}',
    "functions of a number": b'{"decode": 1}',
    "not a number": b'{"decode": {"linear": {"calls": NaN}}}',
    "a very long number": b'{"decode": {"linear": {"calls": ' + b"9" * 5000 + b"}}}",
    "deep objects": b'{"a":' * 100_000,
    "too large": b'{"decode": {}' + b" " * MAX_JSON_BYTES + b"}",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bytes_that_list_no_kernels(tmp_path: Path, name: str) -> None:
    write(tmp_path, BAD_FILES[name])
    with pytest.raises(ArtifactError, match=r"kernels\.json"):
        read_kernel_traffic(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read"):
        read_kernel_traffic(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(key=st.sampled_from(sorted(GOOD)), value=json_values, outer=json_values)
def test_mutations_raise_artifact_errors_only(
    key: str, value: Any, outer: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("kernels")
    for document in ({"decode": {"linear": GOOD | {key: value}}}, {"decode": outer}, outer):
        write(folder, json.dumps(document).encode())
        try:
            total = total_traffic(read_kernel_traffic(folder).get("decode", {}).values())
        except ArtifactError:
            continue
        assert all(number >= 0 for number in asdict(total).values())
