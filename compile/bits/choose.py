"""Chooses each unit's scheme: the least loss within a number of bits.

The losses of units are taken to add up. Then this is a knapsack with a choice for each unit, which
dynamic programming solves exactly: bits are counted in the largest unit that divides those of all
schemes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mvlm.models.quantization import PLAN_SCHEMES, SCHEMES, UNITS, BitPlan, LayerPlan

# A plan's losses, by layer, unit and scheme.
Losses = Sequence[Mapping[str, Mapping[str, float]]]
# Bits are counted in no more units than this. Where the sizes of a model have no large common
# divisor, costs are rounded up, and a plan may leave a few thousandths of the bits unused.
_MOST_CAPACITY = 1 << 16


def choose_plan(losses: Losses, weights: Mapping[str, int], bits: float) -> BitPlan:
    """Return the plan whose losses have the least sum.

    Of plans with equal sums, the first in a fixed order is returned.

    Args:
        losses: What each scheme costs each unit of each layer, in any unit.
        weights: The number of weights of each unit of a layer.
        bits: Of a weight, on average; at least those of the smallest scheme.
    """
    units = [(layer, unit) for layer in range(len(losses)) for unit in UNITS]
    costs, capacity = _costs(weights, bits, len(losses))
    table = np.array(
        [[losses[layer][unit][name] for name in PLAN_SCHEMES] for layer, unit in units]
    )
    best = np.zeros(capacity + 1)
    choices = np.zeros((len(units), capacity + 1), np.int8)
    for index, (_, unit) in enumerate(units):
        options = np.full((len(PLAN_SCHEMES), capacity + 1), np.inf)
        for scheme, cost in enumerate(costs[unit]):
            if cost <= capacity:
                options[scheme, cost:] = best[: capacity + 1 - cost] + table[index, scheme]
        choices[index] = options.argmin(axis=0)
        best = options.min(axis=0)
    chosen, left = dict[tuple[int, str], str](), capacity
    for index, (layer, unit) in reversed([*enumerate(units)]):
        scheme = int(choices[index, left])
        chosen[layer, unit] = PLAN_SCHEMES[scheme]
        left -= costs[unit][scheme]
    return BitPlan(
        tuple(
            LayerPlan(**{unit: chosen[layer, unit] for unit in UNITS})
            for layer in range(len(losses))
        )
    )


def total_loss(plan: BitPlan, losses: Losses) -> float:
    """Return the sum of a plan's losses."""
    return math.fsum(
        found[unit][scheme]
        for layer, found in zip(plan.layers, losses, strict=True)
        for unit, scheme in layer.items()
    )


def _costs(
    weights: Mapping[str, int], bits: float, layers: int
) -> tuple[dict[str, list[int]], int]:
    """Return what each scheme takes of each unit beyond the smallest one, and what there is."""
    # Bits come in quarters.
    quarters = [round(4 * SCHEMES[name].weights.bits_per_weight) for name in PLAN_SCHEMES]
    more = [each - quarters[0] for each in quarters]
    step = math.gcd(*(weights[unit] for unit in UNITS)) * math.gcd(*more)
    # Rounding down by less than a millionth of a bit, lest 4.25 be missed by 4.249999.
    total = layers * sum(weights[unit] for unit in UNITS)
    budget = math.floor(total * (4 * bits - quarters[0]) + total * 1e-6)
    step = max(step, math.ceil(budget / _MOST_CAPACITY))
    costs = {unit: [-(-each * weights[unit] // step) for each in more] for unit in UNITS}
    return costs, min(budget // step, layers * sum(costs[unit][-1] for unit in UNITS))
