"""Tower and projector as ONNX, run by onnxruntime, against the independent torch reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from mvlm.models.config.read import read_config
from mvlm.models.interchange import Conversion, convert
from mvlm.runtime.errors import UsageError
from tests.artifacts import ArtifactCache
from tests.reference import FAMILIES, FEATURE_TOLERANCE, Reference

SEEING = [name for name, family in FAMILIES.items() if family.vision]
# Half-precision products and sums all the way, at unit scale.
HALF_TOLERANCE = 0.03


def pixels_for(checkpoint: Path, batch: int = 1) -> np.ndarray:
    vision = read_config(checkpoint).vision
    assert vision is not None
    size = vision.image_size
    return np.random.default_rng(0).standard_normal((batch, 3, size, size), np.float32)


@pytest.mark.parametrize("family", SEEING)
def test_stages_equal_the_reference(
    artifact_cache: ArtifactCache, tmp_path: Path, family: str
) -> None:
    checkpoint = artifact_cache.checkpoint(family)
    convert(checkpoint, tmp_path, Conversion("onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "vision.onnx")
    reference = Reference(checkpoint)
    pixels = pixels_for(checkpoint)
    embeddings, features = session.run(
        ["image_embeddings", "vision_features"], {"pixel_values": pixels}
    )
    np.testing.assert_allclose(
        features, reference.vision_features(pixels), rtol=0, atol=FEATURE_TOLERANCE
    )
    np.testing.assert_allclose(
        embeddings, reference.projector_output(pixels), rtol=0, atol=FEATURE_TOLERANCE
    )


@pytest.mark.parametrize("family", ["ldpnet", "ldpnetv2"])
def test_batches(artifact_cache: ArtifactCache, tmp_path: Path, family: str) -> None:
    checkpoint = artifact_cache.checkpoint(family)
    convert(checkpoint, tmp_path, Conversion("onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "vision.onnx")
    pixels = pixels_for(checkpoint, 3)
    together = session.run(None, {"pixel_values": pixels})
    for index in range(3):
        alone = session.run(None, {"pixel_values": pixels[index : index + 1]})
        for left, right in zip(together, alone, strict=True):
            np.testing.assert_allclose(left[index : index + 1], right, atol=1e-5)


def test_half_precision(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    checkpoint = artifact_cache.checkpoint("ldpnet")
    for kind in ("f32", "f16"):
        (tmp_path / kind).mkdir()
        convert(checkpoint, tmp_path / kind, Conversion("onnx", kind))
    sizes = [(tmp_path / kind / "vision.onnx.data").stat().st_size for kind in ("f32", "f16")]
    assert sizes[1] < 0.6 * sizes[0]
    session = onnxruntime.InferenceSession(tmp_path / "f16" / "vision.onnx")
    reference = Reference(checkpoint)
    pixels = pixels_for(checkpoint)
    found = session.run(["image_embeddings"], {"pixel_values": pixels.astype(np.float16)})[0]
    expected = reference.projector_output(pixels)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=HALF_TOLERANCE)


def test_onnx_metadata_and_names(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    convert(artifact_cache.checkpoint("ldpnet"), tmp_path, Conversion("onnx"))
    model = onnx.load(tmp_path / "vision.onnx", load_external_data=False)
    assert model.producer_name == "mvlm"
    assert [value.name for value in model.graph.input] == ["pixel_values"]
    assert {value.name for value in model.graph.output} == {"image_embeddings", "vision_features"}
    # The weights are beside it, so that the graph itself is small.
    assert (tmp_path / "vision.onnx").stat().st_size < 100_000


def test_a_text_only_model_has_no_onnx_export(
    artifact_cache: ArtifactCache, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="has no vision tower"):
        convert(artifact_cache.checkpoint("text"), tmp_path, Conversion("onnx"))
    with pytest.raises(UsageError, match=r"unknown type.*'f64'"):
        convert(artifact_cache.checkpoint("ldpnet"), tmp_path, Conversion("onnx", "f64"))
