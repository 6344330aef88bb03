"""Compiled models against the torch reference: every stage, every family, every quantization.

The tolerances are the reference's own (`FEATURE_TOLERANCE`, `LOGIT_TOLERANCE`), which are tight
enough to show a tanh GELU or a wrong epsilon. They hold for float16 and 4-bit weights as well,
because the reference then computes with the very same rounded weights: what is compared is the
arithmetic, and that is float32 everywhere.

Half of the families and schemes are compared by default: every projector, every scheme, every type
of cache. `make test-extended` compares the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.runtime.engine import Engine, Request, Trace
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from tests.artifacts import ArtifactCache
from tests.by_default import families
from tests.forward import Forward
from tests.models.rounding import Rounding, to_float16, to_q4, write_rounded
from tests.reference import (
    FAMILIES,
    FEATURE_TOLERANCE,
    IMAGE_TOKEN,
    LOGIT_TOLERANCE,
    Reference,
    draw_image,
    preprocess,
    write_random_checkpoint,
)

Floats = npt.NDArray[np.float32]

GREEDY_TOKENS = 64
# Greedy tokens of two implementations must agree where the best logit leads by more than both
# may be off. The prompts below were taken with leads well above this.
SMALLEST_LEAD = 2 * LOGIT_TOLERANCE
# This one is compiled from bfloat16 shards below, and held to the same numbers there.
SHARDED = "ldpnetv2_odd"
WHOLE = families(family for family in FAMILIES if family != SHARDED)


@dataclass(frozen=True)
class Pair:
    """A compiled model and the reference, with a prompt for both."""

    model: Model
    reference: Reference
    ids: list[int]
    pixels: Floats | None

    @property
    def images(self) -> list[Floats]:
        """The prompt's images, each by itself."""
        return [] if self.pixels is None else np.split(self.pixels, len(self.pixels))

    def run(self, tokens: int = 1) -> tuple[list[int], dict[str, npt.NDArray[np.generic]]]:
        """Answer the prompt greedily, recording every stage; the tokens, and the stages."""
        engine, trace, params = Engine(self.model), Trace(), SamplingParams(max_tokens=tokens)
        (answer,) = engine.submit(Request(self.ids, self.images, params, trace=trace))
        return list(engine.tokens(answer)), trace.arrays()

    def check_stages(self) -> None:
        """Compare features, projected embeddings and the logits of every position."""
        _, found = self.run()
        if self.pixels is not None:
            np.testing.assert_array_equal(found["pixel_values"], self.pixels)
            features = self.reference.vision_features(self.pixels)
            assert found["vision_features"].shape == features.shape
            assert largest_difference(found["vision_features"], features) <= FEATURE_TOLERANCE
            projected = self.reference.projector_output(self.pixels)
            assert found["projector_output"].shape == projected.shape
            assert largest_difference(found["projector_output"], projected) <= FEATURE_TOLERANCE
        logits = self.reference.prefill_logits(self.ids, self.pixels)
        assert found["prefill_logits"].shape == logits.shape
        assert largest_difference(found["prefill_logits"], logits) <= LOGIT_TOLERANCE
        np.testing.assert_array_equal(found["prompt_ids"], self.ids)
        np.testing.assert_array_equal(found["step_logits"], found["prefill_logits"][-1:])

    def check_greedy(self) -> None:
        """Compare the tokens of greedy decoding, by one token at a time and by drafted ones."""
        tokens, lead = self.reference.greedy_with_margin(self.ids, self.pixels, GREEDY_TOKENS)
        assert lead > SMALLEST_LEAD, "take another prompt: this one has a tie"
        forward = Forward(self.model)
        found = [int(forward.prefill(self.ids, pixels=self.images)[-1].argmax())]
        while len(found) < GREEDY_TOKENS:
            found.append(int(forward.decode(found[-1]).argmax()))
        assert found == tokens
        assert self.run(GREEDY_TOKENS)[0] == tokens


def largest_difference(left: npt.NDArray[np.generic], right: Floats) -> float:
    return float(np.abs(left - right).max())


def make_pair(artifact: Path, checkpoint: Path, *, images: int = 1, seed: int = 0) -> Pair:
    """A prompt of 20 random tokens with images among them, seven tokens apart."""
    model = Model(artifact)
    ids = [1, *np.random.default_rng(seed).integers(3, model.settings.vocabulary, 20).tolist()]
    if model.settings.image is None:
        return Pair(model, Reference(checkpoint), ids, None)
    drawn = [draw_image(90 - 20 * number, 61, seed=seed + number) for number in range(images)]
    for number in range(images):
        ids.insert(5 + 7 * number, IMAGE_TOKEN)
    return Pair(model, Reference(checkpoint), ids, preprocess(checkpoint, drawn))


@pytest.fixture(scope="module")
def pair(artifact_cache: ArtifactCache) -> Callable[[str], Pair]:
    """The pair of a family in float32, made once."""
    pairs: dict[str, Pair] = {}

    def of(family: str) -> Pair:
        if family not in pairs:
            pairs[family] = make_pair(
                artifact_cache.artifact(family), artifact_cache.checkpoint(family)
            )
        return pairs[family]

    return of


@pytest.mark.parametrize("family", WHOLE)
def test_every_stage_in_float32(pair: Callable[[str], Pair], family: str) -> None:
    pair(family).check_stages()


@pytest.mark.parametrize("family", WHOLE)
def test_greedy_tokens_in_float32(pair: Callable[[str], Pair], family: str) -> None:
    pair(family).check_greedy()


@pytest.mark.parametrize("family", families(["ldpnet", "ldpnet_odd"]))
def test_three_images_in_one_prompt(artifact_cache: ArtifactCache, family: str) -> None:
    pair = make_pair(
        artifact_cache.artifact(family), artifact_cache.checkpoint(family), images=3, seed=1
    )
    assert pair.ids.count(IMAGE_TOKEN) == 3
    pair.check_stages()
    pair.check_greedy()


def test_images_at_both_ends_and_side_by_side(artifact_cache: ArtifactCache) -> None:
    family = "ldpnet"
    pair = make_pair(
        artifact_cache.artifact(family), artifact_cache.checkpoint(family), images=3, seed=2
    )
    ids = [IMAGE_TOKEN, 1, 40, 50, IMAGE_TOKEN, IMAGE_TOKEN]
    Pair(pair.model, pair.reference, ids, pair.pixels).check_stages()


def test_a_prompt_of_an_image_alone(artifact_cache: ArtifactCache) -> None:
    family = "ldpnet"
    pair = make_pair(artifact_cache.artifact(family), artifact_cache.checkpoint(family))
    Pair(pair.model, pair.reference, [IMAGE_TOKEN], pair.pixels).check_stages()


@pytest.mark.parametrize("family", families(["ldpnet_odd", "linear", "mlp2x_gelu"]))
@pytest.mark.parametrize("seed", [3, 4])
def test_parity_of_random_prompts(artifact_cache: ArtifactCache, family: str, seed: int) -> None:
    make_pair(
        artifact_cache.artifact(family), artifact_cache.checkpoint(family), seed=seed
    ).check_stages()


def test_positions_far_into_the_context(artifact_cache: ArtifactCache) -> None:
    """Three chunks, and rotary angles that grow with the position."""
    model, reference = (
        Model(artifact_cache.artifact("text")),
        Reference(artifact_cache.checkpoint("text")),
    )
    ids = [1, *np.random.default_rng(5).integers(3, 384, 1199).tolist()]
    found = Engine(model).logits(ids)
    np.testing.assert_allclose(found, reference.prefill_logits(ids), rtol=0, atol=LOGIT_TOLERANCE)


@dataclass(frozen=True)
class Rounded:
    """Schemes for decoder and vision, and what they make of a matrix."""

    quantization: str
    vision_quantization: str
    language: Rounding
    vision: Rounding


HALF = Rounded("q0f16", "q0f16", to_float16, to_float16)
FOUR_BITS = Rounded("q4f16_1", "q0f16", to_q4, to_float16)
# Patches of 14 x 14 have 588 values, which neither 8 nor 32 divides.
ALL_FOUR_BITS = Rounded("q4f16_1", "q4f16_1", to_q4, to_q4)


@pytest.mark.parametrize(
    ("family", "rounded"),
    [
        pytest.param("ldpnet", HALF, id="float16"),
        pytest.param("ldpnet_odd", FOUR_BITS, id="4 bits", marks=pytest.mark.extended),
        pytest.param(
            "ldpnet", ALL_FOUR_BITS, id="4 bits in the tower too", marks=pytest.mark.extended
        ),
        pytest.param("linear", FOUR_BITS, id="grouped heads", marks=pytest.mark.slow),
        pytest.param("ldpnetv2", FOUR_BITS, id="V2", marks=pytest.mark.slow),
    ],
)
def test_rounded_weights(
    artifact_cache: ArtifactCache, tmp_path: Path, family: str, rounded: Rounded
) -> None:
    checkpoint = write_rounded(
        artifact_cache.checkpoint(family), tmp_path, rounded.language, rounded.vision
    )
    schemes = (rounded.quantization, rounded.vision_quantization)
    # Keys and values are not rounded in the reference.
    artifact = artifact_cache.artifact(family, *schemes, cache="float32")
    pair = make_pair(artifact, checkpoint)
    pair.check_stages()
    pair.check_greedy()


@pytest.mark.extended
@pytest.mark.parametrize("family", families(["ldpnet", "ldpnet_odd", "ldpnetv2"]))
def test_sixteen_bit_integers_are_as_close_as_float16(
    artifact_cache: ArtifactCache, family: str
) -> None:
    """Weights and activations both rounded, against float16's weights alone."""
    errors: dict[str, list[float]] = {}
    for scheme in ("q0f16", "q16a16"):
        artifact = artifact_cache.artifact(family, scheme, scheme, cache="float32")
        pair = make_pair(artifact, artifact_cache.checkpoint(family))
        assert pair.pixels is not None
        _, stages = pair.run()
        projected = pair.reference.projector_output(pair.pixels)
        logits = pair.reference.prefill_logits(pair.ids, pair.pixels)[-1]
        errors[scheme] = [
            float(np.square(found - expected).mean())
            for found, expected in (
                (stages["projector_output"], projected),
                (stages["step_logits"][0], logits),
            )
        ]
    for half, integers in zip(errors["q0f16"], errors["q16a16"], strict=True):
        assert 0 < integers <= half


@pytest.mark.parametrize(
    ("cache", "least", "most", "family"),
    [
        pytest.param("float16", 1e-5, 4e-3, "linear", marks=pytest.mark.extended),
        ("int8", 1e-3, 1.2e-1, "ldpnet"),
        pytest.param("float16", 1e-5, 3e-3, "ldpnet", marks=pytest.mark.extended),
        pytest.param("int8", 1e-3, 1.2e-1, "linear", marks=pytest.mark.extended),
    ],
)
def test_rounded_keys_and_values(
    artifact_cache: ArtifactCache, cache: str, least: float, most: float, family: str
) -> None:
    """They move logits, whose spread is about 2, by what their digits come to and not more."""
    pair = make_pair(
        artifact_cache.artifact(family, cache=cache), artifact_cache.checkpoint(family)
    )
    _, stages = pair.run()
    logits = pair.reference.prefill_logits(pair.ids, pair.pixels)[-1]
    assert least < largest_difference(stages["step_logits"][0], logits) < most


@pytest.mark.extended
def test_rounded_weights_differ_from_exact_ones(artifact_cache: ArtifactCache) -> None:
    """The quantized models are not float32 ones by another name."""
    exact = make_pair(artifact_cache.artifact("ldpnet"), artifact_cache.checkpoint("ldpnet"))
    for rounded, least in ((HALF, 1e-4), (ALL_FOUR_BITS, 1e-2)):
        schemes = (rounded.quantization, rounded.vision_quantization)
        model = Model(artifact_cache.artifact("ldpnet", *schemes, cache="float32"))
        _, stages = Pair(model, exact.reference, exact.ids, exact.pixels).run()
        logits = exact.reference.prefill_logits(exact.ids, exact.pixels)
        assert largest_difference(stages["step_logits"][0], logits[-1]) > least


@pytest.mark.parametrize("family", [SHARDED, pytest.param("ldpnet_odd", marks=pytest.mark.slow)])
def test_bfloat16_shards_end_to_end(tmp_path: Path, family: str) -> None:
    """As the official releases are: several `pytorch_model-*.bin` in bfloat16."""
    checkpoint = write_random_checkpoint(
        tmp_path / "model", family, seed=6, file_format="bin", shards=3, dtype="bfloat16"
    )
    assert len(list(checkpoint.glob("pytorch_model-*.bin"))) == 3
    artifact = tmp_path / "artifact"
    compile_job(plan_job(checkpoint, quantization="q0f32"), artifact)
    pair = make_pair(artifact, checkpoint)
    pair.check_stages()
    pair.check_greedy()


def test_a_tied_output_head(tmp_path: Path) -> None:
    checkpoint = write_random_checkpoint(
        tmp_path / "model", "text", seed=7, num_hidden_layers=1, tie_word_embeddings=True
    )
    artifact = tmp_path / "artifact"
    compile_job(plan_job(checkpoint, quantization="q0f32"), artifact)
    make_pair(artifact, checkpoint).check_stages()


@pytest.mark.extended
def test_the_rotary_base_as_transformers_5_writes_it(tmp_path: Path) -> None:
    """The reference, of transformers 4, is given the same base under the older key."""
    older, newer = (
        write_random_checkpoint(tmp_path / name, "text", seed=8, num_hidden_layers=1, **changes)
        for name, changes in (
            ("older", {"rope_theta": 300.0}),
            ("newer", {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}),
        )
    )
    compile_job(plan_job(newer, quantization="q0f32"), tmp_path / "artifact")
    make_pair(tmp_path / "artifact", older).check_stages()
    # The base matters: with the default one, the logits are others.
    default = write_random_checkpoint(
        tmp_path / "default", "text", seed=8, num_hidden_layers=1, rope_theta=10_000.0
    )
    pair = make_pair(tmp_path / "artifact", default)
    _, stages = pair.run()
    logits = pair.reference.prefill_logits(pair.ids, pair.pixels)[-1]
    assert largest_difference(stages["step_logits"][0], logits) > 1e-2
