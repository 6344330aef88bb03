"""Plans from losses: the least sum within the bits, found exactly."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mvlm.compile.bits.choose import choose_plan, total_loss
from mvlm.models.quantization import PLAN_SCHEMES, SCHEMES, UNITS, BitPlan, LayerPlan

WEIGHTS = {"attention": 4 * 64, "gate_up": 8 * 64, "down": 4 * 64}
Losses = list[dict[str, dict[str, float]]]


def random_losses(seed: int, layers: int = 2) -> Losses:
    """Losses that fall with the bits, some of them by much."""
    rng = np.random.default_rng(seed)

    def unit() -> dict[str, float]:
        falling = np.sort(rng.exponential(size=len(PLAN_SCHEMES)) ** 3)[::-1]
        return dict(zip(PLAN_SCHEMES, falling.tolist(), strict=True))

    return [{name: unit() for name in UNITS} for _ in range(layers)]


def all_plans(layers: int) -> list[BitPlan]:
    single = [LayerPlan(*schemes) for schemes in product(PLAN_SCHEMES, repeat=len(UNITS))]
    return [BitPlan(chosen) for chosen in product(single, repeat=layers)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bits", [3.5, 3.75, 4.25, 4.5, 6.0])
def test_no_plan_within_the_bits_loses_less(seed: int, bits: float) -> None:
    losses = random_losses(seed)
    found = choose_plan(losses, WEIGHTS, bits)
    assert found.mean_bits(WEIGHTS) <= bits + 1e-6
    within = [plan for plan in all_plans(2) if plan.mean_bits(WEIGHTS) <= bits]
    assert len(within) > 1
    assert total_loss(found, losses) <= min(total_loss(plan, losses) for plan in within) + 1e-12


@pytest.mark.parametrize("name", PLAN_SCHEMES)
def test_bits_of_one_scheme_have_room_for_it_everywhere(name: str) -> None:
    """Where nothing is won by a mixture, all units have the scheme of just those bits."""
    order = PLAN_SCHEMES.index(name)
    flat = {each: 1.0 if i < order else 0.0 for i, each in enumerate(PLAN_SCHEMES)}
    losses = [dict.fromkeys(UNITS, flat)] * 3
    plan = choose_plan(losses, WEIGHTS, SCHEMES[name].weights.bits_per_weight)
    assert plan == BitPlan((LayerPlan(*[name] * len(UNITS)),) * 3)


def test_one_unit_that_matters_gets_eight_bits_from_the_others() -> None:
    """At 4.25 bits a mixture of 3 and 8 may be better than 4 bits everywhere."""
    little = {"q3a8": 0.02, "q4a8": 0.01, "q8a8": 0.0}
    much = {"q3a8": 9.0, "q4a8": 3.0, "q8a8": 0.0}
    losses = [dict.fromkeys(UNITS, little) for _ in range(8)]
    losses[5] = {**losses[5], "down": much}
    plan = choose_plan(losses, WEIGHTS, 4.25)
    assert plan.layers[5].down == "q8a8"
    assert plan.schemes() == PLAN_SCHEMES
    uniform = BitPlan((LayerPlan(*["q4a8"] * len(UNITS)),) * 8)
    assert plan.mean_bits(WEIGHTS) <= 4.25 == uniform.mean_bits(WEIGHTS)
    assert total_loss(plan, losses) < total_loss(uniform, losses)


def test_sizes_without_a_common_divisor() -> None:
    """Costs are rounded up: bits are never exceeded, and hardly any are left."""
    weights = {"attention": 1_000_003, "gate_up": 2_000_029, "down": 1_000_033}
    losses = random_losses(1, layers=32)
    plan = choose_plan(losses, weights, 4.0)
    assert 3.99 < plan.mean_bits(weights) <= 4.0
    assert plan == choose_plan(losses, weights, 4.0)


def test_sums_of_losses() -> None:
    losses = random_losses(2)
    plan = BitPlan((LayerPlan("q3a8", "q4a8", "q8a8"), LayerPlan("q8a8", "q3a8", "q4a8")))
    expected = [losses[0]["attention"]["q3a8"], losses[0]["gate_up"]["q4a8"]]
    expected += [losses[0]["down"]["q8a8"], losses[1]["attention"]["q8a8"]]
    expected += [losses[1]["gate_up"]["q3a8"], losses[1]["down"]["q4a8"]]
    assert total_loss(plan, losses) == pytest.approx(sum(expected))
