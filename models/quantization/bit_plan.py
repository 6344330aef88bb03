"""A plan of bits: a scheme for each unit of the decoder's layers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from mvlm.models.quantization.schemes import SCHEMES
from mvlm.runtime.errors import UsageError

PLAN_SCHEMES = ("q3a8", "q4a8", "q8a8")
"""The schemes that a plan may name, by their bits: all have 8-bit activations."""


def check_plan_scheme(name: str, where: str) -> str:
    """Return the name of a scheme that a plan may have.

    Raises:
        UsageError: It is another one.
    """
    if name not in PLAN_SCHEMES:
        raise UsageError(
            f"{where} cannot be one that is chosen by layer",
            expected=" or ".join(PLAN_SCHEMES),
            found=repr(name)[:40],
        )
    return name


@dataclass(frozen=True)
class LayerPlan:
    """The schemes of the units of one decoder layer, by their names.

    Attributes:
        attention: Of Q, K, V and the output projection.
        gate_up: Of the MLP's gate and up projections.
        down: Of the MLP's down projection.

    Raises:
        UsageError: A scheme is not one that a plan may have.
    """

    attention: str
    gate_up: str
    down: str

    def __post_init__(self) -> None:
        for unit, scheme in self.items():
            check_plan_scheme(scheme, f"the scheme of {unit}")

    def items(self) -> tuple[tuple[str, str], ...]:
        """Return units and their schemes."""
        return tuple((unit, getattr(self, unit)) for unit in UNITS)


UNITS = tuple(field.name for field in fields(LayerPlan))
"""What a scheme is chosen for within a layer."""


@dataclass(frozen=True)
class BitPlan:
    """The schemes of all decoder layers, from the first on."""

    layers: tuple[LayerPlan, ...]

    def schemes(self) -> tuple[str, ...]:
        """Return the schemes that occur, by their bits."""
        found = {scheme for layer in self.layers for _, scheme in layer.items()}
        return tuple(name for name in PLAN_SCHEMES if name in found)

    def to_json(self) -> dict[str, list[dict[str, str]]]:
        """Return the plan as plain JSON values."""
        return {"layers": [asdict(layer) for layer in self.layers]}

    def mean_bits(self, weights: dict[str, int]) -> float:
        """Return the bits of a weight of the layers, on average.

        Args:
            weights: The number of weights of each unit of a layer.
        """
        bits = sum(
            SCHEMES[scheme].weights.bits_per_weight * weights[unit]
            for layer in self.layers
            for unit, scheme in layer.items()
        )
        return bits / (len(self.layers) * sum(weights[unit] for unit in UNITS))
