"""The bundled model on two kernel sets, whose weights have different layouts: the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mvlm.bench.quality.bundled_model import BUNDLED
from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.models.quantization import CACHE_STORAGES, SCHEMES, plan_quantization
from mvlm.runtime.artifact.manifest import read_manifest
from mvlm.runtime.artifact.weights import read_weights_index
from mvlm.runtime.chat import Chat
from mvlm.runtime.image import load_image, preprocess
from mvlm.runtime.kv_cache import Run
from mvlm.runtime.model import Model
from tests.once import make_once

Array = npt.NDArray[Any]
IMAGE = BUNDLED.parent / "images" / "demo.png"
LAYOUTS = {"host": "panels16", "portable": "rows"}
# Without integers the order of additions differs, and what is stored in float16. Activations that
# lie between two integers may be rounded to either: on the host alone, moving embeddings of the
# image by 1e-3 moves a logit of q4a8 by 0.9.
TOLERANCE = {
    scheme.name: 0.01 if scheme.activations == "float32" else 0.8 for scheme in SCHEMES.values()
}
MEAN_TOLERANCE = {name: largest / 8 for name, largest in TOLERANCE.items()}
# Of the tower and the projector, whose embeddings reach 5: 16-bit integers at the least.
VISION_TOLERANCE = 0.02


def compiled(folder: Path, target: str, scheme: str, cache: str | None) -> Path:
    quantization = plan_quantization(scheme, cache=cache)
    name = f"bundled-{scheme}-{cache}-{target}"
    return make_once(
        folder / name,
        lambda place: compile_job(
            plan_job(BUNDLED, target=target, quantization=quantization), place
        ),
    )


def image_embeddings(model: Model) -> Array:
    pixels = preprocess(load_image(IMAGE), model.settings.image)
    return np.array(model.device.download(model.project(model.vision_features(pixels))))


def logits_of(model: Model, image: Array) -> Array:
    """Logits of an image's end, of a prompt behind it, and of tokens behind that."""
    cache = model.new_cache()
    pages, length = range(cache.pages), image.shape[1]

    def next_run(count: int) -> list[Run]:
        nonlocal length
        length += count
        return [Run(length - count, count, pages)]

    end = model.prefill(model.device.upload(image), cache, [Run(0, length, pages)], [length - 1])
    text = model.prefill(model.embed(list(range(3, 43))), cache, next_run(40))
    tokens = [model.decode(ids, cache, next_run(len(ids))) for ids in ([5], [60], [7, 8, 9])]
    return np.concatenate([end, text, *tokens])


def answer(model: Model) -> str:
    pixels = preprocess(load_image(IMAGE), model.settings.image)
    return "".join(Chat(model).generate("What is in the image?", [pixels]))


def check_targets_agree(folder: Path, scheme: str, cache: str | None) -> None:
    models = {}
    for target, layout in LAYOUTS.items():
        artifact = compiled(folder, target, scheme, cache)
        assert read_manifest(artifact).target.name == target
        assert read_weights_index(artifact).layout == layout
        models[target] = Model(artifact)
    host, portable = models.values()
    answers = [answer(model) for model in models.values()]
    assert answers[0] == answers[1] and len(answers[0]) > 20
    image = image_embeddings(host)
    np.testing.assert_allclose(image_embeddings(portable), image, rtol=0, atol=VISION_TOLERANCE)
    expected = logits_of(host, image)
    error = np.abs(logits_of(portable, image) - expected)
    assert error.max() <= TOLERANCE[scheme] and np.abs(expected).max() > 10
    assert error.mean() <= MEAN_TOLERANCE[scheme]


@pytest.mark.extended
def test_the_portable_kernels_answer_as_the_hosts_do(shared_folder: Path) -> None:
    check_targets_agree(shared_folder, "q4a8", None)


@pytest.mark.extended
@pytest.mark.parametrize(
    ("scheme", "cache"),
    [
        *((scheme, None) for scheme in SCHEMES if scheme != "q4a8"),
        *(("q4a8", cache) for cache in CACHE_STORAGES if cache != "int8"),
    ],
)
def test_every_scheme_and_cache(shared_folder: Path, scheme: str, cache: str | None) -> None:
    check_targets_agree(shared_folder, scheme, cache)
