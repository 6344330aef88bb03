"""chat.json: written and read, and refused where it cannot be true."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvlm.runtime.artifact.layout import CHAT
from mvlm.runtime.errors import ArtifactError
from mvlm.runtime.image import ImageSpec
from mvlm.runtime.settings import CacheSpec, ChatSettings, PageTensor, read_settings
from tests.artifacts import ArtifactCache

IMAGE = ImageSpec(56, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "pad")
SETTINGS = ChatSettings(
    template="vicuna_v1",
    bos=1,
    eos=(2, 7),
    legacy_tokenizer=False,
    vocabulary=384,
    hidden=128,
    context=2048,
    prefill_chunk=512,
    image=IMAGE,
    image_tokens=4,
    cache=CacheSpec(2, 64, (PageTensor("int8", (2, 64, 64)), PageTensor("float32", (2, 2, 64)))),
)
CACHE = SETTINGS.to_json()["cache"]


def write(folder: Path, values: Any) -> Path:
    (folder / CHAT).write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("value", [SETTINGS, replace(SETTINGS, image=None, image_tokens=0)])
def test_chat_json_round_trip(tmp_path: Path, value: ChatSettings) -> None:
    assert read_settings(write(tmp_path, value.to_json())) == value


def test_the_compiler_writes_what_the_checkpoint_says(artifact_cache: ArtifactCache) -> None:
    found = read_settings(artifact_cache.artifact("ldpnet"))
    assert found.image is not None
    assert (found.image.size, found.image.aspect) == (56, "pad")
    assert (found.bos, found.eos, found.legacy_tokenizer) == (1, (2,), False)
    assert (found.vocabulary, found.hidden, found.context) == (384, 128, 2048)
    assert found.image_tokens == 4
    assert read_settings(artifact_cache.artifact("linear")).legacy_tokenizer is True
    assert read_settings(artifact_cache.artifact("text")).image is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("template", 1),
        ("template", None),
        ("bos", -1),
        ("bos", 384),
        ("bos", True),
        ("bos", 1.0),
        ("eos", []),
        ("eos", [384]),
        ("eos", [-1]),
        ("eos", [True]),
        ("eos", 2),
        ("legacy_tokenizer", 1),
        ("legacy_tokenizer", "no"),
        ("vocabulary", 0),
        ("vocabulary", 10**30),
        ("hidden", 0),
        ("context", 0),
        ("context", 1 << 60),
        ("prefill_chunk", 0),
        ("prefill_chunk", -5),
        ("image_tokens", 0),
        ("image_tokens", -1),
        ("image_tokens", 1 << 60),
        ("image", 1),
        ("image", []),
        ("image", {}),
        ("image", IMAGE.to_json() | {"size": 0}),
        ("image", IMAGE.to_json() | {"size": 10**9}),
        ("image", IMAGE.to_json() | {"size": True}),
        ("image", IMAGE.to_json() | {"mean": [1, 2]}),
        ("image", IMAGE.to_json() | {"mean": None}),
        ("image", IMAGE.to_json() | {"std": [0, 1, 1]}),
        ("image", IMAGE.to_json() | {"aspect": "stretch"}),
        ("image", IMAGE.to_json() | {"surprise": 1}),
        ("cache", None),
        ("cache", CACHE | {"layers": 0}),
        ("cache", CACHE | {"layers": 1 << 40}),
        ("cache", CACHE | {"page_size": 0}),
        ("cache", CACHE | {"page_size": True}),
        ("cache", CACHE | {"tensors": []}),
        ("cache", CACHE | {"tensors": [{"dtype": "int8", "shape": [1]}] * 9}),
        ("cache", CACHE | {"tensors": [{"dtype": "object", "shape": [1]}]}),
        ("cache", CACHE | {"tensors": [{"dtype": "int8", "shape": []}]}),
        ("cache", CACHE | {"tensors": [{"dtype": "int8", "shape": [-1]}]}),
        ("cache", CACHE | {"tensors": [{"dtype": "float32", "shape": [2, 2, 0]}]}),
        ("cache", CACHE | {"tensors": [{"dtype": "int8", "shape": [1 << 40]}]}),
    ],
)
def test_invalid_values_are_refused(tmp_path: Path, key: str, value: object) -> None:
    write(tmp_path, SETTINGS.to_json() | {key: value})
    with pytest.raises(ArtifactError, match=r"chat\.json"):
        read_settings(tmp_path)


def test_a_cache_with_a_tensor_without_elements_is_of_an_older_mvlm(tmp_path: Path) -> None:
    tensors = [{"dtype": "float32", "shape": [2, 2, 0]}]
    write(tmp_path, SETTINGS.to_json() | {"cache": CACHE | {"tensors": tensors}})
    with pytest.raises(ArtifactError, match=r"shape \(2, 2, 0\).*compile it again"):
        read_settings(tmp_path)


@pytest.mark.parametrize("key", sorted(SETTINGS.to_json()))
def test_missing_keys_are_named(tmp_path: Path, key: str) -> None:
    values = SETTINGS.to_json()
    del values[key]
    write(tmp_path, values)
    with pytest.raises(ArtifactError, match=r"chat\.json"):
        read_settings(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot read .*chat\.json"):
        read_settings(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_value_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = SETTINGS.to_json()
    key = data.draw(st.sampled_from(sorted(values)))
    if key == "image" and data.draw(st.booleans()):
        values["image"][data.draw(st.sampled_from(sorted(values["image"])))] = data.draw(
            json_values
        )
    else:
        values[key] = data.draw(json_values)
    folder = write(tmp_path_factory.mktemp("fuzz"), values)
    try:
        assert isinstance(read_settings(folder), ChatSettings)
    except ArtifactError as error:
        assert CHAT in str(error)
