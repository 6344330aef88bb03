"""How the parts of a model are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from mvlm.models.quantization.bit_plan import PLAN_SCHEMES, BitPlan, LayerPlan, check_plan_scheme
from mvlm.models.quantization.schemes import (
    DEFAULT_SCHEME,
    SCHEMES,
    Scheme,
    check_storage,
    find_scheme,
)
from mvlm.models.rounding import ROUNDINGS, Rounding
from mvlm.runtime.errors import UsageError

# The bits of a weight that a plan may have on average.
LEAST_BITS, MOST_BITS = (
    SCHEMES[name].weights.bits_per_weight for name in (PLAN_SCHEMES[0], PLAN_SCHEMES[-1])
)


@dataclass(frozen=True)
class LayerSchemes:
    """The schemes of the units of one decoder layer; see :class:`LayerPlan`."""

    attention: Scheme
    gate_up: Scheme
    down: Scheme


@dataclass(frozen=True)
class Quantization:
    """How a model and its KV cache are stored; :func:`plan_quantization` makes it.

    Attributes:
        language: Of the decoder's layers, unless what follows says otherwise.
        embedding: Of its embedding table.
        head: Of its output head.
        vision: Of tower and projector.
        cache: The storage of keys and values (see `models.cache_layout`).
        ffn: Of the MLPs of the decoder's layers.
        rounding: How scales are chosen; each scheme's own way if None.
        bits: The bits of a weight of the layers, on average, that a plan is still to be made for;
            None if there is nothing to be planned, or the plan is there.
        plan: The schemes of all layers, where they differ.
    """

    language: Scheme
    embedding: Scheme
    head: Scheme
    vision: Scheme
    cache: str
    ffn: Scheme
    rounding: Rounding | None = None
    bits: float | None = None
    plan: BitPlan | None = None

    def layer(self, index: int) -> LayerSchemes:
        """Return the schemes of a decoder layer."""
        assert self.bits is None, "the plan of bits has not been made"
        if self.plan is None:
            return LayerSchemes(self.language, self.ffn, self.ffn)
        layer = self.plan.layers[index]
        return LayerSchemes(**{unit: _rounded(name, self.rounding) for unit, name in layer.items()})

    def layer_schemes(self) -> tuple[Scheme, ...]:
        """Return the schemes that occur in the decoder's layers; all that may, before a plan."""
        if self.bits is None and self.plan is None:
            return tuple(dict.fromkeys((self.language, self.ffn)))
        names = PLAN_SCHEMES if self.plan is None else self.plan.schemes()
        return tuple(_rounded(name, self.rounding) for name in names)

    def layer_plan(self, layers: int) -> BitPlan | None:
        """Return the schemes of so many layers; None where they have one scheme."""
        if self.plan is not None or self.ffn.name == self.language.name:
            return self.plan
        units = LayerPlan(self.language.name, self.ffn.name, self.ffn.name)
        return BitPlan((units,) * layers)

    def with_plan(self, plan: BitPlan) -> Quantization:
        """Return the same with a plan in the place of the bits that it was made for."""
        return replace(self, bits=None, plan=plan)

    @property
    def name(self) -> str:
        """The layers' schemes in a word: ``q4a8``, ``q3a8+q4a8``, or ``3.75bits`` before a plan."""
        if self.bits is not None:
            return f"{self.bits:g}bits"
        return "+".join(scheme.name for scheme in self.layer_schemes())

    def names(self) -> dict[str, str]:
        """Return the names by part."""
        return {
            "language": self.name,
            "embedding": self.embedding.name,
            "head": self.head.name,
            "vision": self.vision.name,
            "cache": self.cache,
        }


def plan_quantization(  # noqa: PLR0913  # each is an option of a job, given by name
    language: str = DEFAULT_SCHEME,
    *,
    embedding: str | None = None,
    head: str | None = None,
    vision: str | None = None,
    cache: str | None = None,
    rounding: str | None = None,
    ffn: str | None = None,
    bits: float | None = None,
    plan: BitPlan | None = None,
) -> Quantization:
    """Settle the schemes of all parts.

    Args:
        language: The scheme of the decoder's layers.
        embedding: Of the embedding table; what goes with `language` if None.
        head: Of the output head; what goes with `language` if None.
        vision: Of tower and projector; what goes with `language` if None.
        cache: The storage of the KV cache; what goes with `language` if None.
        rounding: How scales are chosen in all parts; each scheme's own way if None.
        ffn: Of the MLPs of the decoder's layers; `language` if None.
        bits: The bits of a weight of the decoder's layers, on average: each layer's schemes are
            chosen by what they cost the model (see `compile.bits`).
        plan: The schemes of the decoder's layers.

    Raises:
        UsageError: A name is unknown, bits are out of range, or options exclude each other.
    """
    if rounding is not None and rounding not in ROUNDINGS:
        raise UsageError("unknown rounding", expected=" or ".join(ROUNDINGS), found=repr(rounding))
    _check_mixed(language, ffn, bits, plan)
    chosen = cast("Rounding | None", rounding)

    def scheme(name: str) -> Scheme:
        return _rounded(name, chosen)

    layers = scheme(language)
    return Quantization(
        language=layers,
        embedding=scheme((layers.embedding or language) if embedding is None else embedding),
        head=scheme((layers.head or language) if head is None else head),
        vision=scheme(layers.vision if vision is None else vision),
        cache=check_storage(layers.cache if cache is None else cache),
        ffn=scheme(language if ffn is None else ffn),
        rounding=chosen,
        bits=bits,
        plan=plan,
    )


def _check_mixed(language: str, ffn: str | None, bits: float | None, plan: BitPlan | None) -> None:
    """Check the options by which layers get different schemes."""
    options = {"--ffn-quant": ffn, "--bits": bits, "--plan": plan}
    given = [option for option, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(
            "options that choose the schemes of layers exclude each other",
            expected=" or ".join(options),
            found=" and ".join(given),
        )
    if not given:
        return
    check_plan_scheme(find_scheme(language).name, f"--quant with {given[0]}")
    if ffn is not None:
        check_plan_scheme(find_scheme(ffn).name, "--ffn-quant")
    if bits is not None and not LEAST_BITS <= bits <= MOST_BITS:
        raise UsageError(
            "bits of a weight on average",
            expected=f"{LEAST_BITS} ({PLAN_SCHEMES[0]}) to {MOST_BITS} ({PLAN_SCHEMES[-1]})",
            found=bits,
        )


def _rounded(name: str, rounding: Rounding | None) -> Scheme:
    """Return a scheme, with the way of rounding that all parts have."""
    found = find_scheme(name)
    return found if rounding is None else replace(found, rounding=rounding)
