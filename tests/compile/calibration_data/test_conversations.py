"""Conversations in LLaVA's format: how they are rendered, and which are passed over."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvlm.compile.calibration_data import llava_source
from mvlm.compile.calibration_data.data import DrawSettings, read_samples
from mvlm.compile.calibration_data.samples import IMAGE_LIMITS
from mvlm.runtime.errors import ImageError, UsageError
from mvlm.runtime.image import load_image, preprocess
from mvlm.runtime.template import PLAIN, VICUNA_V1, Marker
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID
from tests.compile.calibration_data.datasets import (
    DEFAULT_FOLDER,
    ENGLISH,
    IMAGE_TOKENS,
    READS,
    SEES,
    TOKENIZER,
    entry,
    said,
    text_of,
)

SYSTEM = VICUNA_V1.system

# --- conversations ------------------------------------------------------------------------------


def test_conversations_are_rendered_as_training_did(
    write: Callable[..., Path], images: Path
) -> None:
    turns = said(
        ("human", "What is this?\n<image>"),
        ("gpt", "A circle."),
        ("human", "Which colour?"),
        ("gpt", "Red."),
    )
    one = {"id": "1", "image": "red.png", "conversations": turns}
    data = read_samples([write("a.json", [one] * 60)], images, SEES)
    first = [f"{SYSTEM} USER: ", Marker.IMAGE, "\nWhat is this? ASSISTANT: A circle.", Marker.EOS]
    prompt = [*first, "USER: Which colour? ASSISTANT: Red.", Marker.EOS]
    assert data.samples[0].ids == tuple(SEES.tokenizer.encode_prompt(prompt))
    pixels = data.samples[0].images[0].pixels(SEES.image)
    expected = preprocess(load_image(images / "red.png"), SEES.image)
    np.testing.assert_array_equal(pixels, expected)


def test_json_and_json_lines_draw_the_same(write: Callable[..., Path], images: Path) -> None:
    entries = [entry(i) for i in range(100)]
    one = read_samples([write("a.json", entries)], images, SEES)
    other = read_samples([write("a.jsonl", entries)], images, SEES)
    assert one.samples == other.samples and len(one.samples) > 20


def test_images_are_found_beside_the_file(write: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copy(DEFAULT_FOLDER / "images" / "00.png", tmp_path / "red.png")
    data = read_samples([write("a.json", [entry(i) for i in range(40)])], None, SEES)
    assert data.samples[0].images[0].path == tmp_path / "red.png"


def test_a_long_conversation_is_cut_and_keeps_its_image(
    write: Callable[..., Path], images: Path
) -> None:
    turns = said(("human", "<image>\nTell me."), ("gpt", ENGLISH * 99))
    long = {"image": "red.png", "conversations": turns}
    data = read_samples([write("a.json", [long] * 20)], images, SEES, DrawSettings(2048, 128))
    assert {sample.positions(IMAGE_TOKENS) for sample in data.samples} == {128 + IMAGE_TOKENS}
    assert {len(sample.images) for sample in data.samples} == {1}


def test_several_images_stay_where_they_are_named(write: Callable[..., Path], images: Path) -> None:
    question = "Is <image> as <image>?"
    turns = said(("human", question), ("gpt", "Yes."))
    two = {"image": ["red.png", "red.png"], "conversations": turns}
    data = read_samples([write("a.json", [two] * 60)], images, SEES)
    prompt = [f"{SYSTEM} USER: Is ", Marker.IMAGE, " as ", Marker.IMAGE, "? ASSISTANT: Yes."]
    ids = SEES.tokenizer.encode_prompt([*prompt, Marker.EOS])
    assert data.samples[0].ids == tuple(ids) and len(data.samples[0].images) == 2
    short = read_samples([write("b.json", [two] * 60)], images, SEES, DrawSettings(2048, 64))
    assert short.samples[0].ids.count(IMAGE_TOKEN_ID) == len(short.samples[0].images) == 1


def test_a_template_without_turns_takes_the_first(write: Callable[..., Path]) -> None:
    path = write("a.json", [entry(i, None) for i in range(200)])
    data = read_samples([path], None, replace(READS, template=PLAIN))
    assert "What is number" in text_of(data) and "Because" not in text_of(data)


@pytest.mark.parametrize("mark", ["</s>", "<s>", "<unk>", "<image>", "<0x0A>"])
def test_text_never_becomes_a_special_token(write: Callable[..., Path], mark: str) -> None:
    special = {TOKENIZER.eos_id, TOKENIZER.unk_id, IMAGE_TOKEN_ID}
    data = read_samples([write("a.txt", f"say {mark} now " * 400)], None, READS)
    assert mark in text_of(data)
    for sample in data.samples:
        assert not special & set(sample.ids) and TOKENIZER.bos_id not in sample.ids[1:]


def test_marks_in_conversations_stay_text(write: Callable[..., Path]) -> None:
    turns = said(("human", "</s>" * 9), ("gpt", "<s><image></s>" * 9))
    data = read_samples([write("a.json", [{"conversations": turns}] * 60)], None, READS)
    counts = Counter(data.samples[0].ids)
    assert (counts[TOKENIZER.eos_id], counts[TOKENIZER.bos_id]) == (1, 1)
    assert counts[IMAGE_TOKEN_ID] == 0


# --- entries and images that are passed over ----------------------------------------------------


def test_images_that_cannot_be_used_are_counted_and_named(
    write: Callable[..., Path], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(images / "red.png", tmp_path / "secret.png")
    (images / "broken.png").write_bytes((images / "red.png").read_bytes()[:60])
    (images / "text.png").write_text("no image")
    (images / "large.png").write_bytes(b"\x89PNG" + bytes(1000))
    limits = replace(IMAGE_LIMITS, max_bytes=1000)
    monkeypatch.setattr("mvlm.compile.calibration_data.samples.IMAGE_LIMITS", limits)
    outside = ["../secret.png", str(tmp_path / "secret.png"), "a/../../secret.png", "C:\\x.png", ""]
    unreadable = ["broken.png", "text.png", "large.png", "x" * 5000]
    missing = [f"coco/{index}.jpg" for index in range(5)]
    names = [*outside, *unreadable, *missing, "nul\0.png"]
    entries = [entry(i, name) for i, name in enumerate(names)]
    path = write("a.json", entries + [entry(i) for i in range(20)])
    data = read_samples([path], images, SEES, DrawSettings(tokens=16_384))
    assert data.sources[0].samples == 20
    assert data.sources[0].skipped == {
        "with an image outside of the images' folder": len(outside) + 1,
        "whose image cannot be read": len(unreadable),
        f"whose image is not in {images}": len(missing),
    }
    warning = data.warnings[0]
    assert "entries passed over: " in warning and "..." in warning
    assert sum(f"coco/{index}.jpg" in warning for index in range(5)) == 3
    assert "x" * 200 not in warning


def test_nothing_but_missing_images_is_an_error(
    write: Callable[..., Path], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.json", [entry(i, "gone.jpg") for i in range(300)])
    with pytest.raises(UsageError, match=r"too little .* found 0, and .* 300 whose image is not"):
        read_samples([path], images, SEES)
    monkeypatch.setattr(llava_source, "MAX_SKIPPED", 50)
    with pytest.raises(UsageError, match=r"50 whose image is not in .*gone\.jpg"):
        read_samples([path], images, SEES)


def test_an_image_that_changes_while_calibrating_is_noticed(
    write: Callable[..., Path], images: Path
) -> None:
    data = read_samples([write("a.json", [entry(i) for i in range(40)])], images, SEES)
    Image.new("RGB", (40, 30), "green").save(images / "red.png")
    with pytest.raises(ImageError, match=r"red\.png has changed"):
        data.samples[0].images[0].pixels(SEES.image)
    (images / "red.png").unlink()
    with pytest.raises(ImageError, match=r"cannot read .*red\.png"):
        data.samples[0].images[0].pixels(SEES.image)


def test_a_text_model_leaves_out_entries_with_images(write: Callable[..., Path]) -> None:
    entries = [entry(i, "red.png" if i % 2 else None) for i in range(60)]
    data = read_samples([write("a.json", entries)], None, READS)
    assert data.sources[0].samples == 30
    assert data.sources[0].skipped == {"with images, which the model does not read": 30}
    assert "30 with images, which the model does not read" in data.warnings[0]


QA = [("human", "<image>\nWhat?"), ("gpt", "That.")]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"conversations": said(*QA)}, "with 1 <image> for 0 images"),
        ({"image": None, "conversations": said(*QA)}, "with 1 <image> for 0 images"),
        ({"image": "red.png", "conversations": said(*QA, *QA)}, "with 2 <image> for 1 image"),
        ({"image": ["red.png"] * 9, "conversations": said(*QA)}, "with more than 8 images"),
        ({"conversations": said(("system", "Be kind."), ("human", "?"))}, "with an unknown role"),
        ({"conversations": []}, "without a question"),
        ({"conversations": said(("gpt", "Hello."))}, "without a question"),
        ({"conversations": said(("human", " "), ("gpt", "Yes."))}, "with an empty question"),
        (
            {"image": "red.png", "conversations": said(("human", "<image>\n"))},
            "with an empty question",
        ),
        (
            {"conversations": said(("human", "a"), ("human", "b"))},
            "in which question and answer do not alternate",
        ),
        (
            {"video": "a.mp4", "conversations": said(("human", "a"))},
            "with the key 'video', which is not understood",
        ),
    ],
)
def test_unusable_entries_are_passed_over(
    write: Callable[..., Path], images: Path, bad: dict[str, Any], reason: str
) -> None:
    path = write("a.json", [bad, bad] + [entry(i) for i in range(20)])
    data = read_samples([path], images, SEES)
    assert data.sources[0].skipped == {reason: 2}
    assert data.sources[0].samples == 20
    assert f"2 {reason} (" in data.warnings[0]


def test_what_stands_before_the_first_question_is_dropped(write: Callable[..., Path]) -> None:
    turns = said(("gpt", "Ignored opening."), ("human", "Why?" * 20), ("gpt", "So."))
    data = read_samples([write("a.json", [{"conversations": turns}] * 99)], None, READS)
    assert "Ignored" not in text_of(data) and not data.sources[0].skipped


def test_unknown_keys_are_named_once(write: Callable[..., Path]) -> None:
    noted = [entry(i, None, model="", score=i, rating=5) for i in range(60)]
    noted[3]["conversations"][0]["weight"] = 1
    data = read_samples([write("a.json", noted)], None, READS)
    assert [w for w in data.warnings if "not understood" in w] == [
        f"{data.sources[0].path}: passed over keys that are not understood: "
        "'rating', 'score', 'weight'."
    ]
