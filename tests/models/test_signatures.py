"""Signatures: the contracts between the operations' definitions, kernels, oracles and the tuner."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tvm import te, tirx
from tvm.target import Target

from mvlm.compile.tuning.cost_model import OPERATIONS as WITH_KNOBS
from mvlm.models.cache_layout import CacheLayout
from mvlm.models.ops.attention import attention_definition as bidirectional_definition
from mvlm.models.ops.convolution import convolution_definition
from mvlm.models.ops.definition import (
    call,
    check_parameters,
    define,
    keep_parameters,
    mark,
    placeholders,
)
from mvlm.models.ops.embedding import embedding_definition
from mvlm.models.ops.kv_cache import append_definition, attention_definition
from mvlm.models.ops.linear import linear_definition, linear_signature, quantized_linear_definition
from mvlm.models.ops.rowwise import PROLOGUES, quantize_rows_definition, rowwise_definition
from mvlm.models.ops.signatures import (
    FEW,
    SIGNATURES,
    AppendSignature,
    AttentionSignature,
    CachedAttentionSignature,
    DepthwiseConvolutionSignature,
    EmbeddingSignature,
    LinearSignature,
    QuantizedLinearSignature,
    QuantizeRowsSignature,
    RowwiseSignature,
    Signature,
    parse_signature,
    read_signature,
)
from mvlm.models.quantization import CACHE_STORAGES, SCHEMES, WEIGHT_FORMATS
from mvlm.schedules.config_space import SpaceRecorder
from mvlm.schedules.cpu.kernels import KERNELS
from mvlm.schedules.cpu.panels import PANELS
from mvlm.schedules.oracles import make_kernel_case
from tests.panels import FORMATS
from tests.schedules.test_design_spaces import OPERATIONS as DESIGN_SPACES

EXAMPLES = {type(op) for op in DESIGN_SPACES.values()}
DEFINE: dict[type[Signature], Callable[[Any], tirx.PrimFunc]] = {
    AppendSignature: append_definition,
    AttentionSignature: bidirectional_definition,
    CachedAttentionSignature: attention_definition,
    DepthwiseConvolutionSignature: convolution_definition,
    EmbeddingSignature: embedding_definition,
    LinearSignature: linear_definition,
    QuantizedLinearSignature: quantized_linear_definition,
    QuantizeRowsSignature: quantize_rows_definition,
    RowwiseSignature: rowwise_definition,
}
ROWS = (None, FEW, 1, 5)
ROUNDED = (("int8", 16), ("int8", 128), ("int16", 0))
LAYOUTS = [CacheLayout(1, 2, 16, storage) for storage in CACHE_STORAGES]
OPERATIONS: list[Signature] = [
    AttentionSignature(7, 2, 8),
    DepthwiseConvolutionSignature(6, 5, 2),
    *(AppendSignature.for_cache(layout, rows, 4) for layout in LAYOUTS for rows in ROWS),
    *(CachedAttentionSignature.for_cache(layout, rows, 4) for layout in LAYOUTS for rows in ROWS),
    *(EmbeddingSignature(rows, 9, 40, each) for each in WEIGHT_FORMATS for rows in ROWS),
    *(
        EmbeddingSignature(None, 9, 40, each.weights.name, PANELS.name, each.activations)
        for each in SCHEMES.values()
    ),
    *(RowwiseSignature(rows, 64, name, 1e-5) for name in PROLOGUES for rows in ROWS),
    # Kernels are built of parts that do not know each other: prologue and rounding, product and
    # epilogue. So pairs are covered here, each prologue with each rounding and so on, not triples.
    *(
        QuantizeRowsSignature(rows, 64, name, 1e-5, *ROUNDED[(i + j) % 3], 1)
        for i, name in enumerate(PROLOGUES)
        for j, rows in enumerate(ROWS)
    ),
    *(
        linear_signature(linear_format, rows, 64, 20, bias=bias, residual=residual)
        for i, linear_format in enumerate(FORMATS.values())
        for j, rows in enumerate(ROWS)
        for k, (bias, residual) in enumerate(itertools.product((False, True), repeat=2))
        if (i + j + k) % 2 == 0
    ),
]
Q4A8 = linear_signature(FORMATS["q4a8"], None, 2048, 5632, residual=True)


def kind(op: Signature) -> Callable[[Any], tirx.PrimFunc]:
    return DEFINE[type(op)]


def test_every_operation_is_among_the_examples() -> None:
    assert {type(op) for op in OPERATIONS} == set(SIGNATURES.values()) == set(DEFINE)
    assert all(name == signature.OP for name, signature in SIGNATURES.items())


@pytest.mark.parametrize("operation", SIGNATURES)
def test_a_definition_has_its_signature(operation: str) -> None:
    """Every field comes back from the attributes, with its type."""
    for op in OPERATIONS:
        if operation == op.OP:
            definition = kind(op)(op)
            found = type(op).of(definition)
            assert found == op == read_signature(definition)
            assert repr(found) == repr(op)  # 1 is not True, and 0.0 not 0
            check_parameters(definition, op)


def test_a_text_is_a_signature() -> None:
    texts = {op.text: op for op in OPERATIONS}
    assert len(texts) == len(set(OPERATIONS))
    assert all(repr(parse_signature(text)) == repr(op) for text, op in texts.items())


def test_texts_stay_as_they_are() -> None:
    """A text that changes is another workload: the logs' records of it are lost."""
    assert Q4A8.text == (
        "quantized_linear v1 rows=any width=2048 features=5632 weights=q4nl layout=panels16 "
        "bias=0 residual=1 activation_scales=8"
    )
    assert RowwiseSignature(1, 64, "rms_norm", 1e-05).text == (
        "rowwise v1 rows=1 width=64 prologue=rms_norm eps=1e-05"
    )
    assert CachedAttentionSignature.for_cache(LAYOUTS[-1], 1, 4).text == (
        "cached_attention v1 rows=1 heads=4 kv_heads=2 head_dim=16 page_size=64 storage=int8"
    )
    assert RowwiseSignature(FEW, 64, "gelu", 0.0).text == (
        "rowwise v1 rows=few width=64 prologue=gelu eps=0.0"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "matmul v1 rows=1",
        "rowwise v2 rows=1 width=64 prologue=rms_norm eps=1e-05",
        "rowwise v1 rows=1 width=64 prologue=rms_norm",
        "rowwise v1 width=64 rows=1 prologue=rms_norm eps=1e-05",
        "rowwise v1 rows=1 width=wide prologue=rms_norm eps=1e-05",
        "rowwise v1 rows=several width=64 prologue=rms_norm eps=1e-05",
        "rowwise v1 rows=1 width=64 prologue=rms_norm eps=1e-05 residual=1",
        # A format and a layout of no version, and the format that earlier ones had.
        "embedding v1 count=1 vocabulary=9 width=40 weights=q5",
        Q4A8.text.replace("panels16", "panels8"),
        Q4A8.text.replace("q4nl", "q4"),
    ],
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_signature(text)


def test_parameters_have_names_shapes_and_dtypes() -> None:
    extents = {"rows": 3}
    found = {each.name: (each.known_shape(extents), each.dtype) for each in Q4A8.parameters}
    assert found == {
        "x": ((3, 2048), "int8"),
        "x_scales": ((3, 8), "float32"),
        "zero_point_correction": ((3, 64), "int32"),
        "zero_point_halves": ((3, 64, 2), "int16"),
        "offset_sums": ((3, 64), "float32"),
        "weight": ((352, 64, 4, 64), "uint8"),
        "scales": ((352, 64, 16), "int8"),
        "row_scales": ((352, 16), "float32"),
        "levels": ((352, 16), "int8"),
        "residual": ((3, 5632), "float32"),
        "y": ((3, 5632), "float32"),
    }
    assert [each.name for each in Q4A8.parameters if each.is_written] == ["y"]


def test_optional_parameters_are_there_only_where_given() -> None:
    def names(op: Signature) -> list[str]:
        return [each.name for each in op.parameters]

    q16 = linear_signature(FORMATS["q16a16"], 1, 64, 20, bias=True)
    assert names(q16) == ["x", "x_scales", "weight", "scales", "bias", "y"]
    assert names(linear_signature(FORMATS["q0f16"], 1, 64, 20)) == ["x", "weight", "y"]
    layer_norm = RowwiseSignature(1, 64, "layer_norm", 1e-5)
    assert names(layer_norm) == ["x", "weight", "bias", "y"]
    assert names(replace(layer_norm, prologue="gelu")) == ["x", "y"]
    for layout in LAYOUTS:
        written = [each.name for each in AppendSignature.for_cache(layout, 1, 4).parameters]
        assert ("scales" in written) == (layout.storage == "int8")


def test_a_single_row_and_few() -> None:
    for op in OPERATIONS:
        rows = getattr(op, "rows", getattr(op, "count", 0))
        assert op.is_single_row == (rows == 1)
        assert op.has_few_rows == (rows == FEW)


def test_a_definition_with_other_parameters_is_refused() -> None:
    op = RowwiseSignature(None, 64, "rms_norm", 1e-5)
    inputs = placeholders(op)
    right = te.compute(inputs["x"].shape, lambda i, j: inputs["x"][i, j], name="y")
    define(op, inputs, right)
    wrong_name = te.compute(inputs["x"].shape, lambda i, j: inputs["x"][i, j], name="z")
    with pytest.raises(AssertionError, match=r"expected the parameters .*'y'\], found .*'z'\]"):
        define(op, inputs, wrong_name)
    with pytest.raises(AssertionError, match=r"expected the parameters .*'weight', 'y'\]"):
        define(op, {"x": inputs["x"]}, right)
    narrow = te.compute((inputs["x"].shape[0], 32), lambda i, j: inputs["x"][i, j], name="y")
    with pytest.raises(AssertionError, match=r"found .*32"):
        define(op, inputs, narrow)
    half = te.compute(inputs["x"].shape, lambda i, j: inputs["x"][i, j].astype("float16"), name="y")
    with pytest.raises(AssertionError, match="float16"):
        define(op, inputs, half)


@pytest.mark.parametrize(
    "other", [replace(Q4A8, rows=1), replace(Q4A8, features=5616), replace(Q4A8, bias=True)]
)
def test_another_signature_of_a_definition_is_refused(other: Signature) -> None:
    with pytest.raises(AssertionError, match="expected"):
        mark(kind(Q4A8)(Q4A8), other)


def test_another_operation_is_refused() -> None:
    definition = kind(Q4A8)(Q4A8)
    with pytest.raises(ValueError, match="expected linear, found quantized_linear"):
        LinearSignature.of(definition)


def test_rows_that_should_be_equal() -> None:
    """Two symbolic extents of one name are one variable."""
    op = RowwiseSignature(None, 64, "gelu", 0.0)
    x = placeholders(op)["x"]
    other = tirx.Var("rows", "int64")
    y = te.compute((other, 64), lambda i, j: x[0, j], name="y")
    with pytest.raises(AssertionError, match="rows"):
        define(op, {"x": x}, y)


def test_parameters_are_kept_by_name() -> None:
    whole = replace(Q4A8, bias=True)
    function = keep_parameters(kind(whole)(whole), Q4A8)
    assert [each.name for each in function.params] == [each.name for each in Q4A8.parameters]
    with pytest.raises(AssertionError, match=r"found .*'y'\]"):
        keep_parameters(kind(Q4A8)(Q4A8), whole)


def test_arguments_are_given_by_name() -> None:
    definition = kind(Q4A8)(Q4A8)
    with pytest.raises(AssertionError, match=r"expected the arguments .*'residual'\], found \[\]"):
        call(definition, Q4A8, "linear", {})


@pytest.mark.parametrize("operation", [each.OP for each in KERNELS.builders])
def test_a_kernel_has_its_signature(operation: str) -> None:
    """Its parameters are the definition's, of which rows may be general, and so is its mark."""
    built = 0
    with Target("llvm"):
        for op in OPERATIONS:
            recorder = SpaceRecorder()
            kernel = KERNELS.build(op, recorder) if operation == op.OP else None
            if kernel is None:
                continue
            built += 1
            if recorder.knobs:
                assert type(op) in WITH_KNOBS, "add it to OPERATIONS of the cost model"
                assert type(op) in EXAMPLES, "add it to OPERATIONS of test_design_spaces.py"
            assert read_signature(kernel) == op
            assert [each.name for each in kernel.params] == [each.name for each in op.parameters]
            for each, parameter in zip(kernel.params, op.parameters, strict=True):
                assert str(each.ty.dtype) == parameter.dtype
                for found, expected in zip(each.ty.shape, parameter.shape, strict=True):
                    assert isinstance(found, tirx.Var) or int(found) == expected
    assert built


@pytest.mark.parametrize("operation", [each.OP for each in KERNELS.builders])
def test_every_kernel_has_an_oracle(operation: str) -> None:
    extents = {"rows": 3, "run_edges": 2, "num_blocks": 2, "pages": 3}
    op = next(each for each in OPERATIONS if operation == each.OP)
    case = make_kernel_case(op, extents)
    assert list(case.arguments) == [each.name for each in op.parameters]
    assert list(case.expect()) == [each.name for each in op.parameters if each.is_written]
