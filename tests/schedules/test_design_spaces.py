"""Every configuration of a kernel computes the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import tirx

from mvlm.compile.pipeline import tensor_functions
from mvlm.compile.tuning.measure_candidate import workload_of
from mvlm.models import ops
from mvlm.models.cache_layout import CacheLayout
from mvlm.models.ops import kv_cache
from mvlm.models.ops.rowwise import Prologue, quantize_rows
from mvlm.models.panels import panel_layout
from mvlm.models.quantization import SCHEMES
from mvlm.schedules.config_space import FixedConfig, Knob, SpaceRecorder, default_config
from mvlm.schedules.cpu import KERNELS
from mvlm.schedules.cpu.instructions import INSTRUCTION_SETS, InstructionSet
from mvlm.schedules.cpu.panel_linear import panel_linear
from mvlm.schedules.oracles import make_kernel_case
from mvlm.schedules.oracles.arithmetic import integer_linear
from mvlm.schedules.oracles.linear import unpack_panels
from tests.device import device
from tests.kernels import build, trace

ROWS = 9  # no tile's rows divide it
EXTENTS = {"rows": ROWS, "n": ROWS, "num_blocks": 2, "pages": 3}


def only(module: tvm.IRModule, name: str) -> tirx.PrimFunc:
    return next(f for _, f in tensor_functions(module) if str(f.attrs["mvlm.op"]) == name)


def of_linear(scheme: str, rows: int | str, width: int = 512, features: int = 64) -> tirx.PrimFunc:
    weight_format = SCHEMES[scheme].weights
    if SCHEMES[scheme].activations != "float32":
        arrays = list(panel_layout(weight_format).arrays(width, features).values())
        name = "panel_linear"
    else:
        elements = weight_format.elements(width) if weight_format.is_integer else width
        arrays = [((features // 16, elements, 16), weight_format.dtype)]
        if weight_format.is_integer:
            arrays.append(((features // 16, width // 32, 16), weight_format.scale_dtype))
        name = "linear"
    module = trace(
        lambda x, *w: ops.linear(x, w, features, SCHEMES[scheme]),
        [((1, rows, width), "float32"), *arrays],
    )
    return only(module, name)


def of_rows(rows: int | str) -> tirx.PrimFunc:
    specs = [((rows, 256), "float32"), ((256,), "float32")]
    module = trace(
        lambda x, w: quantize_rows(x, Prologue("rms_norm", (w,), 1e-6), "int8", 8, 8)[0], specs
    )
    return only(module, "quantize_rows")


LAYOUT = CacheLayout(1, 2, 128, "int8")
DEFINITIONS: dict[str, Callable[[], tirx.PrimFunc]] = {
    "attention": lambda: only(
        trace(lambda x: ops.attention(x, 2), [((1, 21, 384), "float32")]), "attention"
    ),
    "cached_attention": lambda: kv_cache.attention_definition("rows", 4, LAYOUT),
    "cached_attention of one": lambda: kv_cache.attention_definition(1, 8, LAYOUT),
    "append_to_cache": lambda: kv_cache.append_definition("rows", 6, LAYOUT),
    "quantize_rows": lambda: of_rows("n"),
    "quantize_rows of one": lambda: of_rows(1),
    **{
        f"{scheme} linear{of}": lambda scheme=scheme, rows=rows: of_linear(scheme, rows)  # type: ignore[misc]
        for scheme in ("q0f32", "q4f16_1", "q4a8", "q8a8", "q16a16")
        for of, rows in (("", "n"), (" of one", 1))
    },
}


def drawn(knobs: tuple[Knob, ...], count: int) -> list[dict[str, int]]:
    random = np.random.default_rng(0)
    return [{knob.name: int(random.choice(knob.values)) for knob in knobs} for _ in range(count)]


def ends(knobs: tuple[Knob, ...]) -> list[dict[str, int]]:
    """The least and greatest value of each knob, all others at their defaults."""
    default = {knob.name: knob.default for knob in knobs}
    return [
        default | {knob.name: end} for knob in knobs for end in (knob.values[0], knob.values[-1])
    ]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_random_configs_compute_the_same(name: str) -> None:
    check(name, lambda knobs: drawn(knobs, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFINITIONS)
def test_extreme_configs_compute_the_same(name: str) -> None:
    check(name, lambda knobs: [*ends(knobs), *drawn(knobs, 8)])


def check(name: str, select: Callable[[tuple[Knob, ...]], list[dict[str, int]]]) -> None:
    definition = DEFINITIONS[name]()
    workload = workload_of(definition, EXTENTS)
    with device().target:
        knobs = KERNELS.space(definition)
        # The signature is all that a kernel is built from.
        assert KERNELS.space(workload) == knobs
    kernel_case = make_kernel_case(workload)
    for point in select(knobs):
        with device().target:
            kernel = KERNELS.lower(definition, FixedConfig(point))
        tensors = [tvm.runtime.tensor(array) for array in kernel_case.arguments]
        build(kernel)(*tensors)
        found = {place: tensor.numpy() for place, tensor in enumerate(tensors)}
        assert kernel_case.largest_error(found) <= 1, point


@pytest.mark.slow
@pytest.mark.parametrize("instructions", INSTRUCTION_SETS, ids=lambda known: known.name)
@pytest.mark.parametrize("scheme", ["q4a8", "q8a8", "q16a16"])
def test_configs_of_every_instruction_set(scheme: str, instructions: InstructionSet) -> None:
    definition = of_linear(scheme, "n", 512, 32)
    recorder = SpaceRecorder()
    panel_linear(definition, recorder, instructions)
    kernel_case = make_kernel_case(workload_of(definition, EXTENTS))
    for point in [*ends(tuple(recorder.knobs)), *drawn(tuple(recorder.knobs), 4)]:
        kernel = panel_linear(definition, FixedConfig(point), instructions)
        tensors = [tvm.runtime.tensor(array) for array in kernel_case.arguments]
        build(kernel)(*tensors)
        assert kernel_case.largest_error(dict(enumerate(t.numpy() for t in tensors))) <= 1, point


def test_unsupported_config_is_refused() -> None:
    definition = of_linear("q4a8", "n")
    with device().target, pytest.raises(ValueError, match="tile_m is 7, but must be one of"):
        KERNELS.lower(definition, FixedConfig({"tile_m": 7}))


def test_oracle_detects_a_wrong_kernel() -> None:
    """The oracle is not the kernel's own arithmetic, and one wrong element is enough."""
    kernel_case = make_kernel_case(workload_of(of_linear("q4a8", "n"), EXTENTS))
    ((place, (values, allowed)),) = kernel_case.expect().items()
    assert kernel_case.largest_error({place: values.astype(np.float32)}) <= 1
    for wrong in (values[3, 5] + 2 * allowed[3, 5], np.nan):
        found = values.copy()
        found[3, 5] = wrong
        assert kernel_case.largest_error({place: found}) > 1
    assert kernel_case.largest_error({}) == float("inf")


def test_unpack_panels_agrees_with_the_definition() -> None:
    """The oracle's own reading of panels, against the definition of a linear layer."""
    workload = workload_of(of_linear("q4a8", "n"), EXTENTS)
    kernel_case = make_kernel_case(workload)
    x, x_scales, _, panels, scales, row_scales, _ = kernel_case.arguments
    weight = (unpack_panels(panels, 4) - 8)[:64]
    group_scales = np.moveaxis(scales, 2, 1).reshape(-1, 16)[:64].astype(np.float64)
    unit = float(workload.attrs["mvlm.unit"])
    expected = integer_linear(x, x_scales * unit, weight.T, group_scales.T) * row_scales.reshape(-1)
    ((values, _),) = kernel_case.expect().values()
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_default_must_be_a_value_of_the_knob() -> None:
    with pytest.raises(AssertionError, match="tile_m"):
        default_config("tile_m", 3, (1, 2))
