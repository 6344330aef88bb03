"""Schemes by layer: what a quantization says of each, and what the model makes of it."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path

import pytest

from mvlm.models.config.read import read_config
from mvlm.models.layers import Linear, packed_layers
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.quantization import (
    PLAN_SCHEMES,
    SCHEMES,
    UNITS,
    BitPlan,
    LayerPlan,
    Quantization,
    plan_quantization,
)
from mvlm.runtime.artifact.manifest import LayerEntry
from mvlm.runtime.errors import UsageError
from mvlm.schedules.cpu.panels import PANELS
from tests.artifacts import ArtifactCache

PLAN = BitPlan((LayerPlan("q3a8", "q4a8", "q8a8"), LayerPlan("q4a8", "q3a8", "q3a8")))


def _schemes(checkpoint: Path, quantization: Quantization) -> list[str]:
    """Return the schemes of the linear layers of a decoder of two layers, and of its head."""
    model = MobileVLM(read_config(checkpoint), quantization, PANELS)
    layers = packed_layers(model.decoder)
    return [each.linear_format.scheme.name for _, each in layers if isinstance(each, Linear)]


def test_each_unit_has_the_scheme_of_the_plan(artifact_cache: ArtifactCache) -> None:
    checkpoint = artifact_cache.checkpoint("text")
    planned = plan_quantization(head="q4a8", plan=PLAN)
    assert _schemes(checkpoint, planned) == [
        *("q3a8", "q3a8", "q4a8", "q8a8"),
        *("q4a8", "q4a8", "q3a8", "q3a8"),
        "q4a8",
    ]
    mlps = plan_quantization("q4a8", ffn="q3a8")
    assert _schemes(checkpoint, mlps) == [*("q4a8", "q4a8", "q3a8", "q3a8") * 2, "q8a8"]
    assert _schemes(checkpoint, plan_quantization("q3a8")) == [*["q3a8"] * 8, "q8a8"]


def test_names_and_schemes() -> None:
    for quantization, name, schemes in (
        (plan_quantization(), "q4a8", ("q4a8",)),
        (plan_quantization("q8a8", ffn="q3a8"), "q8a8+q3a8", ("q8a8", "q3a8")),
        (plan_quantization("q4a8", ffn="q4a8"), "q4a8", ("q4a8",)),
        (plan_quantization(plan=PLAN), "q3a8+q4a8+q8a8", PLAN_SCHEMES),
        (plan_quantization(bits=3.75), "3.75bits", PLAN_SCHEMES),
        (plan_quantization(bits=4), "4bits", PLAN_SCHEMES),
    ):
        assert quantization.name == quantization.names()["language"] == name
        assert tuple(each.name for each in quantization.layer_schemes()) == schemes


def test_rounding_is_that_of_all_parts() -> None:
    found = plan_quantization(rounding="nearest", plan=PLAN).layer(0)
    assert {each.rounding for each in (found.attention, found.gate_up, found.down)} == {"nearest"}
    assert plan_quantization(plan=PLAN).layer(0).attention is SCHEMES["q3a8"]


def test_layers_of_a_manifest() -> None:
    assert plan_quantization("q4a8").layer_plan(2) is None
    assert plan_quantization(plan=PLAN).layer_plan(2) == PLAN
    mlps = plan_quantization("q4a8", ffn="q3a8").layer_plan(3)
    assert mlps == BitPlan((LayerPlan("q4a8", "q3a8", "q3a8"),) * 3)
    entry = LayerEntry("q4a8", "q3a8", "q3a8")
    assert asdict(entry) == asdict(mlps.layers[0]) and tuple(asdict(entry)) == UNITS


def test_mean_bits() -> None:
    weights = {"attention": 4, "gate_up": 8, "down": 4}
    assert PLAN.mean_bits(weights) == (4 * 3.25 + 8 * 4.25 + 4 * 8.5 + 4 * 4.25 + 12 * 3.25) / 32
    assert hash(PLAN) == hash(pickle.loads(pickle.dumps(PLAN)))


def test_units_of_a_configuration(artifact_cache: ArtifactCache) -> None:
    """Their weights are the matrices of a layer."""
    checkpoint = artifact_cache.checkpoint("text")
    config = read_config(checkpoint)
    model = MobileVLM(config, plan_quantization("q0f32"), PANELS)
    found = dict.fromkeys(UNITS, 0)
    for name, each in packed_layers(model.decoder.layers[1]):
        if isinstance(each, Linear):
            found[name.partition(".")[0]] += each.width * each.features
    assert config.language.unit_weights() == found


@pytest.mark.parametrize(
    ("language", "options", "words"),
    [
        ("q4a8", {"ffn": "q4f16_1"}, r"--ffn-quant cannot be .*q3a8 or q4a8 or q8a8.*'q4f16_1'"),
        ("q4a8", {"ffn": "q5"}, r"unknown quantization"),
        ("q4f16_1", {"ffn": "q3a8"}, r"--quant with --ffn-quant cannot be"),
        ("q4f16_1", {"bits": 4.0}, r"--quant with --bits cannot be"),
        ("q0f16", {"plan": PLAN}, r"--quant with --plan cannot be"),
        ("q4a8", {"bits": 3.2}, r"expected 3.25 \(q3a8\) to 8.5 \(q8a8\), found 3.2"),
        ("q4a8", {"bits": 8.6}, r"found 8.6"),
        ("q4a8", {"bits": float("nan")}, r"found nan"),
        ("q4a8", {"bits": 4.0, "ffn": "q3a8"}, r"exclude each other.*--ffn-quant and --bits"),
        ("q4a8", {"bits": 4.0, "plan": PLAN}, r"exclude each other.*--bits and --plan"),
    ],
)
def test_what_cannot_be(language: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan_quantization(language, **options)


@pytest.mark.parametrize("scheme", ["q4f16_1", "", "q16a16", 4])
def test_plans_of_other_schemes(scheme: str) -> None:
    with pytest.raises(UsageError, match="the scheme of gate_up cannot be one that is chosen"):
        LayerPlan("q4a8", scheme, "q4a8")
