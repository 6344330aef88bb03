"""What is drawn of text and conversations, and from the default data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mvlm.compile.calibration_data import text_source
from mvlm.compile.calibration_data.data import DrawSettings, read_samples
from tests.compile.calibration_data.datasets import (
    DEFAULT_FOLDER,
    ENGLISH,
    IMAGE_TOKENS,
    READS,
    ROOT,
    SEES,
    TOKENIZER,
    TYPICAL,
    entry,
    text_of,
)

# --- the default data ---------------------------------------------------------------------------


def test_by_default_a_model_with_vision_reads_as_much_text_as_scenes() -> None:
    data = read_samples([], None, SEES)
    text, scenes = data.sources
    assert (text.path.name, scenes.path.name) == ("text.txt", "scenes.json")
    assert text.images == 0 and scenes.images == scenes.samples > 40
    assert abs(text.positions - scenes.positions) <= 512
    assert 16_384 <= data.positions < 16_384 + 600
    assert data.warnings == () and not text.skipped and not scenes.skipped
    assert data.positions == sum(sample.positions(IMAGE_TOKENS) for sample in data.samples)


def test_by_default_a_text_model_reads_text_alone() -> None:
    data = read_samples([], None, READS)
    assert [source.path.name for source in data.sources] == ["text.txt"]
    assert data.warnings == ()
    lengths = [len(sample.ids) for sample in data.samples]
    assert max(lengths) == 512 and lengths.count(512) >= 30
    assert all(not sample.images for sample in data.samples)
    assert "<|document|>" not in text_of(data)


def test_the_default_scenes_can_all_be_read() -> None:
    data = read_samples([DEFAULT_FOLDER / "scenes.json"], None, SEES)
    assert data.sources[0].samples == data.sources[0].images == 48
    assert not data.sources[0].skipped
    assert len({sample.images[0].sha256 for sample in data.samples}) == 48


def test_the_default_data_is_small_and_packaged(tmp_path: Path) -> None:
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    packaged = tmp_path / "mvlm" / "compile" / "calibration_data" / "default"
    files = [path for path in packaged.rglob("*") if path.is_file()]
    assert len(files) == 50
    assert sum(path.stat().st_size for path in files) < 800_000


# --- what is drawn ------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_and_another_seed_another() -> None:
    one, again = read_samples([], None, SEES), read_samples([], None, SEES)
    other = read_samples([], None, SEES, DrawSettings(seed=1))
    assert one == again and one.digest == again.digest
    assert one.digest != other.digest and len(one.digest) == 64


def test_the_digest_is_of_ids_and_images_and_not_of_paths(
    write: Callable[..., Path], images: Path
) -> None:
    path = write("a.json", [entry(i) for i in range(40)])
    data = read_samples([path], images, SEES)
    moved = images.rename(images.parent / "moved")
    elsewhere = read_samples([path.rename(path.parent / "b.json")], moved, SEES)
    assert data.digest == elsewhere.digest
    Image.new("RGB", (40, 30), "blue").save(moved / "red.png")
    assert read_samples([path.parent / "b.json"], moved, SEES).digest != data.digest
    fewer = replace(data, samples=data.samples[1:])
    assert fewer.digest != data.digest


def test_windows_begin_a_sequence_and_do_not_overlap(write: Callable[..., Path]) -> None:
    words = [f"word{index}" for index in range(20_000)]
    path = write("a.txt", "\n".join(words))
    data = read_samples([path], None, READS, DrawSettings(tokens=20_000, length=256))
    assert {sample.ids[0] for sample in data.samples} == {TOKENIZER.bos_id}
    assert max(len(sample.ids) for sample in data.samples) == 256
    assert 20_000 <= data.positions < 20_256
    drawn = [
        int(word.removeprefix("word"))
        for sample in data.samples
        # The words at a window's ends may be cut.
        for word in TOKENIZER.decode(sample.ids).split()[1:-1]
    ]
    assert len(drawn) == len(set(drawn)) > 1000
    # From all over the file.
    assert len({number // 2000 for number in drawn}) == 10


def test_a_short_text_is_used_up_once(write: Callable[..., Path]) -> None:
    path = write("a.md", ENGLISH * 40)
    data = read_samples([path], None, READS)
    whole = len(TOKENIZER.encode(ENGLISH * 40, bos=False))
    assert whole * 0.97 < data.positions < whole * 1.03
    assert "fewer than the 16,384 asked for" in data.warnings[0]


def test_a_text_without_spaces_is_cut_at_characters(write: Callable[..., Path]) -> None:
    data = read_samples([write("a.txt", "人工智能是计算机科学的一个分支。" * 1000)], None, READS)
    assert "\ufffd" not in text_of(replace(data, samples=data.samples[:1]))


def test_a_large_text_is_not_read_as_a_whole(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.txt", ENGLISH * 20_000)
    blocks = []
    read_block = text_source.read_block

    def counted(*block: Any) -> str:
        blocks.append(block)
        return read_block(*block)

    monkeypatch.setattr(text_source, "read_block", counted)
    data = read_samples([path], None, READS)
    assert len(blocks) == len(data.samples) == 32


def test_line_ends_and_a_byte_order_mark_are_not_part_of_the_text(
    write: Callable[..., Path],
) -> None:
    unix = write("a.txt", ENGLISH * 20 + "\n" + ENGLISH * 80)
    windows = write("b.txt", b"\xef\xbb\xbf" + unix.read_bytes().replace(b"\n", b"\r\n"))
    settings = DrawSettings(tokens=8000, length=8192 // 10)
    one, other = (read_samples([path], None, READS, settings) for path in (unix, windows))
    assert "\r" not in text_of(other) and "\ufeff" not in text_of(other)
    assert text_of(one).startswith("The committee") == text_of(other).startswith("The committee")


def test_sources_have_equal_shares_whatever_their_size(write: Callable[..., Path]) -> None:
    small = write("small.txt", ENGLISH * 100)
    large = write("large.txt", TYPICAL * 4)
    conversations = write("c.json", [entry(i, None) for i in range(200)])
    data = read_samples([small, large, conversations], None, READS)
    shares = [source.positions for source in data.sources]
    assert sum(shares) == data.positions >= 16_384
    assert max(shares) - min(shares) <= 512


def test_what_a_short_source_lacks_comes_from_the_others(write: Callable[..., Path]) -> None:
    short, long = write("short.txt", ENGLISH * 10), write("long.txt", TYPICAL)
    data = read_samples([short, long], None, READS)
    assert data.sources[0].positions < 1200
    assert 16_384 <= data.positions < 16_384 + 512
    assert data.warnings == ()
