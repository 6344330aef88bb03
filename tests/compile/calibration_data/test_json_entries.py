"""Entries of large JSON files: found piece by piece, within bounds."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mvlm.compile.calibration_data import json_entries, json_list, source_file
from mvlm.compile.calibration_data.json_entries import JsonEntries
from mvlm.compile.calibration_data.json_list import ListError, object_spans
from mvlm.compile.calibration_data.source_file import check_text_file
from mvlm.runtime.errors import UsageError

objects = st.dictionaries(
    st.text(max_size=5), st.recursive(st.text(max_size=9), st.lists, max_leaves=4), max_size=3
)
CHUNKS = st.sampled_from([1, 2, 3, 7, 64, 2**20])


@given(entries=st.lists(objects, max_size=6), chunk=CHUNKS, indent=st.sampled_from([None, 1]))
@example(entries=[{"]}": '"\\'}, {"é漢": "\u2028 }"}], chunk=1, indent=None)
def test_the_objects_of_a_list_are_found(
    entries: list[Any], chunk: int, indent: int | None
) -> None:
    text = " \n" + json.dumps(entries, ensure_ascii=False, indent=indent) + "\n "
    data = text.encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "_CHUNK", chunk)
        spans = list(object_spans(io.BytesIO(data), 1000))
    assert [json.loads(data[start:end]) for start, end in spans] == entries


@given(data=st.binary(max_size=30), chunk=CHUNKS)
@example(data=b'[{"a": 1}, ]', chunk=1)
@example(data=b'[{"a": "', chunk=3)
@example(data=b"[{}],", chunk=2)
@example(data=b"", chunk=1)
def test_anything_else_is_refused(data: bytes, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "_CHUNK", chunk)
        try:
            spans = list(object_spans(io.BytesIO(data), 1000))
        except ListError as error:
            assert "expected" in str(error) or "more text" in str(error)
        else:
            found = json.loads(data.decode("latin-1"))
            assert isinstance(found, list) and len(found) == len(spans)


def test_an_object_over_the_limit_is_refused_without_reading_the_rest() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1) -> bytes:
            first = b'[{"a": "' if not self.taken else b""
            self.taken += size
            return first + b"x" * (size - len(first))

        def tell(self) -> int:
            return 0

    file = Endless()
    with pytest.raises(ListError, match=r"entry 1, an object of at most 3,000,000 bytes at byte 1"):
        list(object_spans(file, 3_000_000))  # type: ignore[arg-type]
    assert file.taken < 10_000_000


def test_entries_are_read_one_by_one(write: Callable[..., Path]) -> None:
    lines = b'\xef\xbb\xbf\n{"a": 1}\r\n\n  {"b": "\xc3\xbc"}  \n{"c": 3}'
    for name, content in (("a.jsonl", lines), ("a.json", [{"a": 1}, {"b": "ü"}, {"c": 3}])):
        entries = JsonEntries(write(name, content))
        assert [entries.read(i) for i in range(len(entries))] == [{"a": 1}, {"b": "ü"}, {"c": 3}]
        assert entries.name(1).endswith(f"{name}: entry 2")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_entries_and_their_number_are_bounded(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(name, [{"a": 1}, {"a": "x" * 500}])
    monkeypatch.setattr(json_entries, "MAX_ENTRY_BYTES", 300)
    with pytest.raises(UsageError, match=r"entry 2 is too large: expected an entry of at most 300"):
        JsonEntries(path)
    monkeypatch.setattr(json_entries, "MAX_ENTRY_BYTES", 3000)
    monkeypatch.setattr(json_entries, "MAX_ENTRIES", 1)
    with pytest.raises(UsageError, match=r"too many entries: expected at most 1\."):
        JsonEntries(path)


@pytest.mark.parametrize("chunk", [1, 2, 3, 64])
def test_characters_across_chunks_are_utf8(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(source_file, "_CHUNK", chunk)
    data = "aö漢🐈 ".encode()
    assert check_text_file(write("a.txt", data)) == len(data)
    with pytest.raises(UsageError, match=r"invalid start byte at byte 11\."):
        check_text_file(write("a.txt", data + b"\xff more"))
    with pytest.raises(UsageError, match=r"invalid continuation byte at byte 11\."):
        check_text_file(write("a.txt", data + b"\xf0\x9fa"))
