"""The table of published models, and recognising one by its shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mvlm.models import model_zoo_table
from mvlm.models.checkpoint import expected_tensors
from mvlm.models.config.read import read_config
from mvlm.models.model_zoo import (
    CLIP,
    PUBLISHED_MODELS,
    PublishedModel,
    find_published_model,
    identify,
)
from mvlm.models.synthetic import documents
from mvlm.models.synthetic.checkpoint import published_config
from mvlm.runtime.errors import UsageError
from tests.artifacts import ArtifactCache

# What each is called for: parameters in billions, without the vision tower.
BILLIONS = {
    "MobileLLaMA-1.4B": 1.36,
    "MobileLLaMA-2.7B": 2.70,
    "MobileVLM-1.7B": 1.36,
    "MobileVLM-3B": 2.70,
    "MobileVLM-V2-1.7B": 1.36,
    "MobileVLM-V2-3B": 2.70,
    "MobileVLM-V2-7B": 6.74,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The documents of a CLIP; a checkpoint beside it finds it."""
    tower = tmp_path / "clip-vit-large-patch14-336"
    tower.mkdir()
    documents.write_json(tower / "config.json", documents.clip_document(CLIP))
    documents.write_json(tower / "preprocessor_config.json", documents.preprocessor_document(336))
    return tmp_path


def write_config(folder: Path, published: PublishedModel, **changes: object) -> Path:
    checkpoint = folder / "any name"
    checkpoint.mkdir()
    documents.write_json(checkpoint / "config.json", published_config(published) | changes)
    return checkpoint


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_a_model_is_identified_by_its_configuration(folder: Path, name: str) -> None:
    assert (
        identify(read_config(write_config(folder, PUBLISHED_MODELS[name])))
        is PUBLISHED_MODELS[name]
    )


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_shapes_add_up_to_what_the_names_say(folder: Path, name: str) -> None:
    config = read_config(write_config(folder, PUBLISHED_MODELS[name]))
    count = 0
    for tensor, shape in expected_tensors(replace(config)).items():
        if tensor.startswith("model.layers.") or tensor in (
            "model.embed_tokens.weight",
            "lm_head.weight",
            "model.norm.weight",
        ):
            size = 1
            for extent in shape:
                size *= extent
            count += size
    assert count / 1e9 == pytest.approx(BILLIONS[name], abs=0.01)


@pytest.mark.parametrize(
    "change",
    [{"num_hidden_layers": 23}, {"hidden_size": 1024}, {"rms_norm_eps": 1e-5}],
)
def test_another_shape_is_not_identified(folder: Path, change: dict[str, object]) -> None:
    published = PUBLISHED_MODELS["MobileLLaMA-1.4B"]
    assert identify(read_config(write_config(folder, published, **change))) is None


def test_small_models_are_not_identified(artifact_cache: ArtifactCache) -> None:
    assert identify(read_config(artifact_cache.checkpoint("ldpnet"))) is None
    assert identify(read_config(artifact_cache.checkpoint("text"))) is None


def test_stale_keys_of_the_3b_change_nothing(folder: Path) -> None:
    published = PUBLISHED_MODELS["MobileVLM-3B"]
    assert published_config(published)["n_head"] == 16
    assert read_config(write_config(folder, published)).language.num_attention_heads == 32


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("MobileVLM-V2-1.7B", "MobileVLM-V2-1.7B"),
        ("mtgv/MobileVLM_V2-1.7B", "MobileVLM-V2-1.7B"),
        ("mobilevlm_v2-7b", "MobileVLM-V2-7B"),
        ("MobileLLaMA-1.4B-Chat", "MobileLLaMA-1.4B"),
        ("mtgv/MobileLLaMA-2.7B-Base", "MobileLLaMA-2.7B"),
    ],
)
def test_names_in_any_spelling(written: str, name: str) -> None:
    assert find_published_model(written).name == name


@pytest.mark.parametrize("name", ["", "LLaVA-7B", "MobileVLM", "../MobileVLM-3B/x"])
def test_unknown_names_list_the_known(name: str) -> None:
    with pytest.raises(UsageError, match=r"unknown model.*MobileVLM-V2-7B"):
        find_published_model(name)


def test_the_documentation_has_the_table() -> None:
    text = (Path(__file__).parents[2] / model_zoo_table.DOCUMENT).read_text(encoding="utf-8")
    assert model_zoo_table.written(text) == text, "run `python -m mvlm.models.model_zoo_table`"
