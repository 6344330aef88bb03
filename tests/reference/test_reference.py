"""The reference is right where it can be checked, and tight enough to show typical mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from tests.reference import (
    FAMILIES,
    FEATURE_TOLERANCE,
    IMAGE_TOKEN,
    LOGIT_TOLERANCE,
    Reference,
    draw_image,
    preprocess,
    projectors,
    write_random_checkpoint,
)
from tests.reference.model import Floats

WITH_VISION = [name for name, family in FAMILIES.items() if family.vision]
WITH_GELU = [name for name in WITH_VISION if name != "linear"]
WITH_QUICK_GELU = [name for name in WITH_VISION if name != "mlp2x_gelu"]
WITH_LDP = ["ldpnet", "ldpnet_odd"]

# A mistake has to show well above the tolerance, not just beyond it.
CLEARLY = 3


@dataclass(frozen=True)
class Case:
    model: Reference
    ids: list[int]
    pixels: Floats | None

    def features(self) -> Floats:
        assert self.pixels is not None
        return self.model.vision_features(self.pixels)

    def projected(self) -> Floats:
        assert self.pixels is not None
        return self.model.projector_output(self.pixels)

    def logits(self) -> Floats:
        return self.model.prefill_logits(self.ids, self.pixels)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("checkpoints")
    return {name: write_random_checkpoint(base / name, name, seed=1) for name in FAMILIES}


@pytest.fixture
def case(folders: dict[str, Path], family: str) -> Case:
    folder = folders[family]
    ids = [1, *np.random.default_rng(0).integers(3, 384, 16).tolist()]
    if FAMILIES[family].vision is None:
        return Case(Reference(folder), ids, None)
    ids[6] = IMAGE_TOKEN
    return Case(Reference(folder), ids, preprocess(folder, [draw_image(90, 61, seed=2)]))


def moved(compute: Callable[[], Floats], before: Floats) -> float:
    """The largest absolute difference that a mistake makes."""
    return float(np.abs(compute() - before).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_scale_is_near_one(case: Case) -> None:
    assert 1 < case.logits().std() < 3
    if case.pixels is not None:
        assert 0.5 < case.features().std() < 3
        assert 0.5 < case.projected().std() < 3


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_agrees_with_float64_within_a_tenth_of_the_tolerance(case: Case) -> None:
    logits = case.logits()
    case.model.language.double()
    embeds = torch.from_numpy(case.model.embeds(case.ids, case.pixels)).double()
    with torch.inference_mode():
        exact = case.model.language(inputs_embeds=embeds[None]).logits[0].numpy()
    assert np.abs(exact - logits).max() < LOGIT_TOLERANCE / 10


@pytest.mark.parametrize("family", WITH_GELU)
def test_tanh_gelu_in_the_projector_shows(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    projected, logits = case.projected(), case.logits()
    monkeypatch.setattr(projectors, "gelu", partial(F.gelu, approximate="tanh"))
    assert moved(case.projected, projected) > CLEARLY * FEATURE_TOLERANCE
    assert moved(case.logits, logits) > CLEARLY * LOGIT_TOLERANCE


@pytest.mark.parametrize("family", WITH_QUICK_GELU)
def test_exact_gelu_for_quick_gelu_shows(case: Case) -> None:
    features, logits = case.features(), case.logits()
    for layer in case.model.tower.vision_model.encoder.layers:
        layer.mlp.activation_fn = torch.nn.GELU()
    assert moved(case.features, features) > CLEARLY * FEATURE_TOLERANCE
    assert moved(case.logits, logits) > CLEARLY * LOGIT_TOLERANCE


@pytest.mark.parametrize("family", WITH_VISION)
def test_layer_norm_epsilon_of_the_tower_shows(case: Case) -> None:
    features = case.features()
    for module in case.model.tower.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    assert moved(case.features, features) > CLEARLY * FEATURE_TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_rms_norm_epsilon_shows(case: Case) -> None:
    logits = case.logits()
    for module in case.model.language.modules():
        if hasattr(module, "variance_epsilon"):
            # Swaps the two that published models have, 1e-6 and 1e-5.
            module.variance_epsilon = 1.1e-5 - module.variance_epsilon
    assert moved(case.logits, logits) > CLEARLY * LOGIT_TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_interleaved_rotary_positions_show(case: Case) -> None:
    """Rotating neighbours is the same as rotating halves with the head's rows reordered."""
    logits = case.logits()
    head_dim = case.model.language.config.head_dim
    order = torch.arange(head_dim).view(-1, 2).T.reshape(-1)
    for layer in case.model.language.model.layers:
        for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            rows = linear.weight.data.view(-1, head_dim, linear.in_features)
            linear.weight.data = rows[:, order].reshape(linear.weight.shape)
    assert moved(case.logits, logits) > CLEARLY * LOGIT_TOLERANCE


@pytest.mark.parametrize(
    ("operation", "mistake"),
    [
        ("hardswish", lambda x: x),
        ("hardswish", F.silu),
        ("hardsigmoid", torch.sigmoid),
        ("hardsigmoid", torch.ones_like),
        ("LAYER_NORM_EPS", 1e-6),
    ],
    ids=["no Hardswish", "Swish", "sigmoid", "no squeeze-excite", "epsilon"],
)
@pytest.mark.parametrize("family", WITH_LDP)
def test_mistakes_in_the_ldp_show(
    case: Case, monkeypatch: pytest.MonkeyPatch, operation: str, mistake: object
) -> None:
    projected = case.projected()
    monkeypatch.setattr(projectors, operation, mistake)
    assert moved(case.projected, projected) > CLEARLY * FEATURE_TOLERANCE


@pytest.mark.parametrize("family", WITH_VISION)
@pytest.mark.parametrize("layer", [-1, -2, -3])
def test_another_layer_of_the_tower_shows(case: Case, layer: int) -> None:
    features, right = case.features(), case.model.config["mm_vision_select_layer"]
    case.model.config["mm_vision_select_layer"] = layer
    shows = moved(case.features, features) > CLEARLY * FEATURE_TOLERANCE
    assert shows == (layer != right)


def test_projectors_agree_with_torch_modules() -> None:
    """The LDP a second time, in another style: nn modules, matrix products, spelt-out erf."""
    torch.manual_seed(0)
    tokens, width = torch.randn(2, 25, 24), 32
    shapes = projectors.projector_shapes("ldpnet", 24, width)
    tensors = {name: torch.randn(shape) / 3 for name, shape in shapes.items()}

    def block(name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        def get(part: str) -> torch.Tensor:
            return tensors[f"model.mb_block.{name}.block.{part}"]

        depthwise = torch.nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        pointwise = torch.nn.Conv2d(width, width, 1, bias=False)
        norms = [torch.nn.LayerNorm(width) for _ in range(2)]
        depthwise.weight.data, pointwise.weight.data = get("0.0.weight"), get("2.0.weight")
        for norm, part in zip(norms, ("0.1", "2.1"), strict=True):
            norm.weight.data, norm.bias.data = get(f"{part}.weight"), get(f"{part}.bias")
        x = torch.nn.Hardswish()(norms[0](depthwise(x).movedim(1, -1))).movedim(-1, 1)
        pooled = x.mean((2, 3))
        hidden = (pooled @ get("1.fc1.weight")[..., 0, 0].T + get("1.fc1.bias")).clamp(min=0)
        scale = hidden @ get("1.fc2.weight")[..., 0, 0].T + get("1.fc2.bias")
        x = x * ((scale + 3).clamp(0, 6) / 6)[..., None, None]
        return norms[1](pointwise(x).movedim(1, -1)).movedim(-1, 1)

    x = tokens @ tensors["model.mlp.1.weight"].T + tensors["model.mlp.1.bias"]
    x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    x = x @ tensors["model.mlp.3.weight"].T + tensors["model.mlp.3.bias"]
    x = x.unflatten(1, (5, 5)).movedim(-1, 1)
    with torch.no_grad():
        x = block("2", x + block("1", x, 1), 2)
    assert x.shape == (2, width, 3, 3)
    expected = x.flatten(2).movedim(1, -1)
    found = projectors.project("ldpnet", tensors, tokens)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_ldpv2_pools_a_grid_of_24_by_means_of_four() -> None:
    torch.manual_seed(0)
    shapes = projectors.projector_shapes("ldpnetv2", 8, 8)
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name in ("mlp.mlp.0.weight", "mlp.mlp.2.weight"):
        tensors[name] = torch.eye(8)
    tokens = torch.randn(1, 576, 8)
    means = F.gelu(tokens).view(12, 2, 12, 2, 8).mean((1, 3)).view(1, 144, 8)
    torch.testing.assert_close(projectors.project("ldpnetv2", tensors, tokens), means)


@pytest.mark.parametrize("family", ["ldpnet"])
def test_embeds_put_the_image_where_its_token_is(case: Case) -> None:
    embeds, image = case.model.embeds(case.ids, case.pixels), case.projected()[0]
    table = case.model.language.get_input_embeddings().weight.detach().numpy()
    assert len(embeds) == len(case.ids) - 1 + len(image)
    np.testing.assert_array_equal(embeds[:6], table[case.ids[:6]])
    np.testing.assert_array_equal(embeds[6 : 6 + len(image)], image)
    np.testing.assert_array_equal(embeds[6 + len(image) :], table[case.ids[7:]])


@pytest.mark.parametrize("family", ["ldpnet", "text"])
def test_greedy_is_the_argmax_of_prefill(case: Case) -> None:
    tokens, margin = case.model.greedy_with_margin(case.ids, case.pixels, 8)
    logits = case.model.prefill_logits(case.ids + tokens[:-1], case.pixels)[-8:]
    assert tokens == logits.argmax(-1).tolist() == case.model.greedy(case.ids, case.pixels, 8)
    top = np.sort(logits, axis=-1)
    assert margin == pytest.approx((top[:, -1] - top[:, -2]).min(), abs=1e-5)


def test_preprocess_pads_with_the_mean_colour(folders: dict[str, Path]) -> None:
    pixels = preprocess(folders["ldpnet"], [draw_image(112, 56, seed=3)])
    processor = transformers.CLIPImageProcessor()
    colour = (np.array([122, 116, 104]) / 255 - processor.image_mean) / processor.image_std
    assert pixels.shape == (1, 3, 56, 56)
    assert pixels.dtype == np.float32
    # The image is twice as wide as high: the upper and lower quarters are padding.
    np.testing.assert_allclose(pixels[0, :, :12].reshape(3, -1).T, [colour] * 672, atol=1e-6)
    assert pixels[0, :, 16:40].std() > 0.1


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
@pytest.mark.parametrize("shards", [1, 3])
def test_formats_hold_the_same_model(tmp_path: Path, file_format: str, shards: int) -> None:
    plain = write_random_checkpoint(tmp_path / "a", "ldpnet", seed=5)
    other = write_random_checkpoint(
        tmp_path / "b", "ldpnet", seed=5, file_format=file_format, shards=shards
    )
    ids = [1, 40, 50]
    np.testing.assert_array_equal(
        Reference(plain).prefill_logits(ids), Reference(other).prefill_logits(ids)
    )


def test_dtypes_round_the_same_weights(tmp_path: Path) -> None:
    logits = {
        dtype: Reference(
            write_random_checkpoint(tmp_path / dtype, "text", seed=5, dtype=dtype)
        ).prefill_logits([1, 40, 50])
        for dtype in ("float32", "float16", "bfloat16")
    }
    half = np.abs(logits["float16"] - logits["float32"]).max()
    brain = np.abs(logits["bfloat16"] - logits["float32"]).max()
    assert LOGIT_TOLERANCE < half < brain < 1


def test_overrides_change_both_files(tmp_path: Path) -> None:
    folder = write_random_checkpoint(
        tmp_path / "a",
        "ldpnet_odd",
        seed=5,
        tie_word_embeddings=True,
        vision={"image_size": 28, "num_hidden_layers": 2},
    )
    model = Reference(folder)
    assert model.language.lm_head.weight is model.language.get_input_embeddings().weight
    assert model.projector_output(np.zeros((1, 3, 28, 28), np.float32)).shape == (1, 1, 160)
