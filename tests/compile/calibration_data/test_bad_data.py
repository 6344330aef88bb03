"""Files that are refused, and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

import pytest

from mvlm.compile.calibration_data import source_file
from mvlm.compile.calibration_data.data import MIN_POSITIONS, DrawSettings, read_samples
from mvlm.runtime.errors import UsageError
from tests.compile.calibration_data.datasets import (
    ENGLISH,
    IMAGE_TOKENS,
    READS,
    SEES,
)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"a\.txt is empty"),
        ("a.txt", b" \n\n", r"a\.txt is empty"),
        ("a.json", b"\xef\xbb\xbf", r"a\.json is empty"),
        ("a.txt", "größer".encode("latin-1"), r"not UTF-8 .* invalid start byte at byte 2\."),
        ("a.txt", "größer".encode("utf-16"), r"not UTF-8 text.*iconv"),
        ("a.txt", "greater".encode("utf-16-le"), r"not UTF-8 text.*NUL bytes"),
        ("a.txt", "ö".encode()[:1], r"not UTF-8 text.*unexpected end of data"),
        ("a.csv", b"a,b", r"a\.csv is of an unknown kind: expected text \(\.txt, \.md\)"),
        ("a.txt", b"version https://git-lfs.github.com/spec/v1\n", r"a Git LFS pointer"),
        ("a.txt", b"Too short.", r"too little calibration data: expected at least 2,048 .* found"),
        ("a.json", b"hello", r"a\.json is not calibration data: expected a JSON list .*'hello'"),
        ("a.json", b"[]", r"a\.json has no entries"),
        ("a.json", b"[1]", r"expected entry 1, an object at byte 1, found '1'"),
        ("a.json", b'[{"a": 1}, 2]', r"expected entry 2, an object at byte 11, found '2'"),
        ("a.json", b'[{"a": 1} {}]', r"expected ',' or ']' at byte 10, found '\{'"),
        ("a.json", b'[{"a": 1}', r"expected ',' or ']' at byte 9, found the end"),
        ("a.json", b'[{"a": }]', r"expected entry 1, an object at byte 1, found Expecting value"),
        ("a.json", b'[{"a": 1}] and', r"more text behind the list, at byte 11"),
        ("a.json", b'{"a": 1}', r"entry 1: key 'conversations' is wrong: expected a list of turns"),
        ("a.jsonl", b'\n{"conversations": [\n', r"entry 1 is not JSON: expected a JSON list"),
        ("a.json", b"[" + b'{"a":' * 99_999, r"expected entry 1, an object.*recursion"),
        ("a.json", [{"conversations": "hi"}], r"entry 1: key 'conversations' .* found str 'hi'"),
        ("a.json", [{"conversations": [1]}], r"entry 1: conversations\[0\] is wrong.*int 1"),
        (
            "a.json",
            [{"conversations": [{"from": "human"}]}],
            r"conversations\[0\]: key 'value' is wrong: expected a text, found nothing",
        ),
        (
            "a.json",
            [{"conversations": [{"from": 1, "value": ""}]}],
            r"conversations\[0\]: key 'from' is wrong: expected a text, found int 1",
        ),
        ("a.json", [{"image": 5, "conversations": []}], r"entry 1: key 'image' .* found int 5"),
    ],
)
def test_bad_files_are_refused_by_name(
    write: Callable[..., Path], name: str, content: object, message: str
) -> None:
    path = write(name, content)
    with pytest.raises(UsageError, match=message) as caught:
        read_samples([path], None, READS)
    assert str(path.name) in str(caught.value) or "too little" in str(caught.value)
    assert caught.value.exit_code == 2


def test_files_that_are_not_there(tmp_path: Path, write: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*gone\.txt"):
        read_samples([tmp_path / "gone.txt"], None, READS)
    with pytest.raises(UsageError, match="is a folder"):
        read_samples([tmp_path], None, READS)
    (tmp_path / "link.txt").symlink_to("nowhere")
    with pytest.raises(UsageError, match="link that leads nowhere"):
        read_samples([tmp_path / "link.txt"], None, READS)
    text = write("a.txt", ENGLISH)
    with pytest.raises(UsageError, match=r"there is no folder .*pictures"):
        read_samples([text], tmp_path / "pictures", READS)
    with pytest.raises(UsageError, match=r"a\.txt is given twice"):
        read_samples([text, text], None, READS)
    with pytest.raises(UsageError, match="a folder of images without data"):
        read_samples([], tmp_path, READS)


@pytest.mark.parametrize("name", ["a.txt", "a.json"])
def test_files_that_cannot_be_read(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(name, ENGLISH)
    whole = Path.open

    def refuse(self: Path, mode: str) -> IO[bytes]:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return cast("IO[bytes]", whole(self, mode))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=rf"cannot read .*{name}: found Permission denied"):
        read_samples([path], None, READS)


def test_files_over_the_limit_are_refused(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_file, "MAX_BYTES", 1000)
    with pytest.raises(UsageError, match=r"too large: expected at most 1,000 bytes"):
        read_samples([write("a.txt", ENGLISH * 99)], None, READS)


def test_little_data_is_warned_about_and_less_is_refused(write: Callable[..., Path]) -> None:
    enough = ENGLISH * 30
    data = read_samples([write("a.txt", enough)], None, READS)
    assert MIN_POSITIONS < data.positions < 4000
    assert data.warnings == (
        f"The calibration data has {data.positions:,} tokens, fewer than the 16,384 asked for. "
        "More data makes a better model.",
    )
    with pytest.raises(UsageError, match=r"expected at least 2,048 tokens, found \d,\d{3}\. Give"):
        read_samples([write("a.txt", enough[: len(enough) // 2])], None, READS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": 100}, r"tokens to calibrate with: expected 2,048 to 1,048,576, found 100"),
        ({"tokens": 2**21}, "tokens to calibrate with"),
        ({"length": 8}, r"length of a sample: expected 64 to 8,192, found 8"),
    ],
)
def test_settings_out_of_range(settings: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DrawSettings(**settings)


def test_samples_fit_into_the_context() -> None:
    data = read_samples([], None, replace(SEES, context=200))
    assert max(sample.positions(IMAGE_TOKENS) for sample in data.samples) <= 200
    assert data.warnings[0].startswith("Calibration reads samples of 164 tokens")
    with pytest.raises(UsageError, match=r"context is too short .* at least 100 .* found 99"):
        read_samples([], None, replace(SEES, context=99))
