"""The bytes of each function's kernels: counted by hand, and against the weights and the cache."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
from tvm import te
from tvm.relax.frontend import nn

from mvlm.bench.report import weight_bytes_per_token
from mvlm.compile.pipeline import lower
from mvlm.models import ops
from mvlm.models.cache_layout import PAGE_SIZE, CacheLayout
from mvlm.models.config.read import read_config
from mvlm.models.kv_cache import cache_spec, read_cache
from mvlm.models.layers import Embedding, Linear, TiedEmbedding
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.quantization import SCHEMES, plan_quantization
from mvlm.runtime.artifact.kernels import KernelTraffic, total_traffic
from mvlm.runtime.artifact.weights import TensorEntry, WeightsIndex
from mvlm.schedules.cpu.panels import PANELS
from tests.device import described
from tests.panels import FORMATS

BUNDLED = Path(__file__).parents[2] / "models" / "bundled" / "mobilevlm-shapes"
WIDTH, FEATURES, VOCABULARY = 64, 48, 10
LAYOUT = CacheLayout(layers=1, kv_heads=2, head_dim=32, storage="int8")
HEADS = 4 + 2 * LAYOUT.kv_heads

Traffic = dict[str, dict[str, KernelTraffic]]


class Small(nn.Module):
    """One of each thing that is counted in its own way."""

    def __init__(self) -> None:
        self.table = Embedding("table", VOCABULARY, WIDTH, SCHEMES["q4f16_1"])
        self.matrix = Linear(("matrix",), WIDTH, FEATURES, FORMATS["q0f32"], bias=True)
        self.head = Linear(("head",), WIDTH, VOCABULARY, FORMATS["q4a8"], bias=False)
        self.tied = TiedEmbedding(self.head)
        self.gains = nn.Parameter((2, WIDTH // 2), "float32")

    def look_up(self, ids: nn.Tensor) -> nn.Tensor:
        return self.table(ids)

    def look_up_tied(self, ids: nn.Tensor) -> nn.Tensor:
        return self.tied(ids)

    def multiply(self, x: nn.Tensor, residual: nn.Tensor) -> nn.Tensor:
        return self.matrix(x, residual=residual)

    def scale(self, x: nn.Tensor) -> nn.Tensor:
        """Take a parameter by a view of it."""

        def product(a: te.Tensor, b: te.Tensor) -> te.Tensor:
            return te.compute(a.shape, lambda i, j: a[i, j] * b[j], name="product")

        return nn.op.tensor_expr_op(product, "product", [x, nn.op.reshape(self.gains, (WIDTH,))])

    def attend(self, qkv: nn.Tensor, turns: nn.Tensor, cache: list[nn.Tensor]) -> nn.Tensor:
        place = read_cache(LAYOUT, cache)
        pages = ops.append_to_cache(qkv, (turns, turns), place, 0)
        return ops.cached_attention(qkv, (turns, turns), place, pages)


@functools.cache
def small() -> Traffic:
    """The memory traffic of `Small`'s functions."""

    def spec(*shape: int | str, dtype: str = "float32") -> nn.spec.Tensor:
        return nn.spec.Tensor(shape, dtype)

    modes = {"param_mode": "packed", "effect_mode": "none"}
    half = LAYOUT.head_dim // 2
    functions = {
        "look_up": {"ids": spec(1, "n", dtype="int32")},
        "look_up_tied": {"ids": spec(1, "n", dtype="int32")},
        "multiply": {"x": spec("n", WIDTH), "residual": spec("n", FEATURES)},
        "scale": {"x": spec(3, WIDTH)},
        "attend": {
            "qkv": spec("n", HEADS, LAYOUT.head_dim),
            "turns": spec("n", half),
            "cache": cache_spec(LAYOUT, "n"),
        },
    }
    target = described("host")
    with target:
        module, _ = Small().export_tvm(
            spec={name: {**arguments, "$": modes} for name, arguments in functions.items()}
        )
    return lower(module, target, "cpu", {"n": 8}).kernel_traffic


def test_functions_and_kernels_by_name() -> None:
    assert {name: list(traffic) for name, traffic in small().items()} == {
        "attend": ["append_to_cache", "cached_attention"],
        "look_up": ["embedding"],
        "look_up_tied": ["embedding1"],
        "multiply": ["linear_48x64"],
        "scale": ["product"],
    }


def test_embedding_traffic_is_the_rows_looked_up() -> None:
    row = WIDTH // 2 + 2 * (WIDTH // 32)  # 4 bits each, and a float16 scale for each 32
    assert small()["look_up"]["embedding"] == KernelTraffic(
        calls=1,
        weight_bytes_per_row=row,
        read_bytes_per_row=4,
        written_bytes_per_row=4 * WIDTH,
    )


def test_traffic_of_a_tied_embedding_is_the_panels_looked_up() -> None:
    # 4 bits each, groups' scales and a row's; a table of 16 levels.
    panel = 16 * (WIDTH // 2 + WIDTH // 32 + 4) + 16
    assert small()["look_up_tied"]["embedding1"] == KernelTraffic(
        calls=1,
        weight_bytes_per_row=panel,
        read_bytes_per_row=4,
        written_bytes_per_row=4 * WIDTH,
    )


def test_matrix_traffic_is_independent_of_rows() -> None:
    assert small()["multiply"]["linear_48x64"] == KernelTraffic(
        calls=1,
        weight_bytes=4 * (WIDTH * FEATURES + FEATURES),
        read_bytes_per_row=4 * (WIDTH + FEATURES),
        written_bytes_per_row=4 * FEATURES,
    )


def test_view_of_a_parameter_counts_as_weight() -> None:
    assert small()["scale"]["product"] == KernelTraffic(
        calls=1,
        weight_bytes=4 * WIDTH,
        read_bytes=4 * 3 * WIDTH,
        written_bytes=4 * 3 * WIDTH,
    )


def test_kv_cache_traffic_is_per_position() -> None:
    vectors = 4 * (HEADS * LAYOUT.head_dim + 2 * (LAYOUT.head_dim // 2))
    place = 4 + 4  # a row's position, and where its sequence's pages begin
    position = LAYOUT.kv_heads * 2 * (LAYOUT.head_dim + 4)  # keys and values, each with a scale
    traffic = small()["attend"]
    assert traffic["append_to_cache"] == KernelTraffic(
        calls=1,
        read_bytes_per_row=vectors + place,
        cache_written_bytes_per_position=position,
    )
    assert traffic["cached_attention"] == KernelTraffic(
        calls=1,
        read_bytes_per_row=vectors + place,
        written_bytes_per_row=4 * 4 * LAYOUT.head_dim,
        cache_read_bytes_per_position=position,
    )


# --- the bundled model --------------------------------------------------------------------------


@functools.cache
def bundled(quantization: str) -> tuple[MobileVLM, WeightsIndex, Traffic]:
    """The model, the index that its weights would have, and its functions' memory traffic."""
    target = described("host")
    model = MobileVLM(read_config(BUNDLED), plan_quantization(quantization), PANELS)
    module, parameters = model.export(target)
    index = WeightsIndex(
        PANELS.name,
        tuple(
            TensorEntry(name, tuple(map(int, tensor.shape)), str(tensor.dtype), f"{i}.bin", 0)
            for i, (name, tensor) in enumerate(parameters)
        ),
    )
    return model, index, lower(module, target, "cpu", {"n": 512}).kernel_traffic


SCHEMES_OF_BOTH_KINDS = ["q0f32", pytest.param("q4a8", marks=pytest.mark.extended)]


@pytest.mark.parametrize("quantization", SCHEMES_OF_BOTH_KINDS)
def test_decoding_reads_the_weights_that_bench_says(quantization: str) -> None:
    _, index, traffic = bundled(quantization)
    total = total_traffic(traffic["decode"].values())
    assert total.weight_bytes == weight_bytes_per_token(index)
    assert total.weight_bytes_per_row == total.read_bytes_per_row == 0
    assert total.written_bytes_per_row == 0


@pytest.mark.parametrize("quantization", SCHEMES_OF_BOTH_KINDS)
@pytest.mark.parametrize("function", ["decode", "decode_few", "prefill", "prefill_all"])
def test_kv_cache_traffic_of_the_bundled_model(quantization: str, function: str) -> None:
    model, _, traffic = bundled(quantization)
    spec = model.cache_layout.spec()
    position = spec.layers * sum(tensor.nbytes for tensor in spec.tensors) // PAGE_SIZE
    total = total_traffic(traffic[function].values())
    assert total.cache_read_bytes_per_position == position
    assert total.cache_written_bytes_per_position == position


def _unnumbered(name: str) -> str:
    """Return a kernel's name without TVM's number; the bundled matrices have 192 or 512 columns."""
    found = re.fullmatch(r"(linear_\d+x(?:192|512)|[a-z_]+?)\d*", name)
    assert found is not None, name
    return found[1]


@pytest.mark.parametrize("quantization", SCHEMES_OF_BOTH_KINDS)
def test_a_prompt_of_one_row_moves_what_decoding_moves(quantization: str) -> None:
    """Every symbolic size is counted: one that is left out would be missing here."""
    traffic = bundled(quantization)[2]
    # TVM numbers functions of one name.
    kernels = {of: set(map(_unnumbered, traffic[of])) for of in ("decode", "prefill_all")}
    assert kernels["decode"] - kernels["prefill_all"] == {"embedding"}
    assert kernels["prefill_all"] <= kernels["decode"]
    decode = total_traffic(traffic["decode"].values())
    lookup, attention = (
        next(found for name, found in traffic["decode"].items() if _unnumbered(name) == operation)
        for operation in ("embedding", "cached_attention")
    )
    prefill = total_traffic(traffic["prefill_all"].values())
    assert prefill.calls == decode.calls - 1
    # The edges of runs, 0 and 1 of one row, are not counted where their number is not known.
    edges = {"read": 4 * 2 * attention.calls}
    for kind in ("weight", "read", "written"):
        of_one_row = getattr(prefill, f"{kind}_bytes") + getattr(prefill, f"{kind}_bytes_per_row")
        of_one_row += edges.get(kind, 0)
        rest = getattr(decode, f"{kind}_bytes") - getattr(lookup, f"{kind}_bytes")
        assert of_one_row == rest, kind


@pytest.mark.parametrize("quantization", SCHEMES_OF_BOTH_KINDS)
def test_tower_and_projector_read_each_of_their_weights_once(quantization: str) -> None:
    _, index, traffic = bundled(quantization)
    sizes = dict.fromkeys(("tower", "image_projector"), 0)
    for entry in index.tensors:
        part = entry.name.split(".")[0]
        if part in sizes:
            sizes[part] += entry.nbytes
    assert total_traffic(traffic["vision_tower"].values()).weight_bytes == sizes["tower"]
    assert total_traffic(traffic["projector"].values()).weight_bytes == sizes["image_projector"]
