"""Builds an ONNX graph whose weights lie in a file next to it, written one tensor at a time.

The nodes are ONNX's own operators (opset 17); what MobileVLM needs beyond them, exact GELU and
CLIP's quick GELU, is composed of those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mvlm.models.activations import QUICK_GELU_SLOPE
from mvlm.models.quantization import to_float16
from mvlm.runtime.errors import CheckpointError, UsageError
from mvlm.runtime.input_file import is_present, utf8_folder

Array = npt.NDArray[Any]

OPSET = 17
# The oldest file format that has opset 17.
_IR_VERSION = 8
_ALIGNMENT = 4096  # so that a reader may map each tensor by itself


def import_onnx() -> Any:
    """Return the package onnx.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise UsageError(
            "ONNX files are read and written with the package onnx, which is not installed",
            fix="Run `pip install 'mvlm[convert]'`.",
        ) from None
    return onnx


def onnx_files(path: Path) -> list[Path]:
    """Return an ONNX file with those next to it that hold its weights.

    Raises:
        UsageError: The package onnx is not installed.
        CheckpointError: One of the files is a link that leads nowhere.
    """
    onnx = import_onnx()
    try:
        model = onnx.load(path, load_external_data=False)
    # The parser documents no errors; the importer of the graph says what is wrong with it.
    except Exception:
        return [path] if is_present(path, CheckpointError) else []
    names = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    others = sorted(path.parent / name for name in names)
    return [path, *(file for file in others if is_present(file, CheckpointError))]


class OnnxGraph:
    """A graph under construction. Values are named by strings.

    Args:
        path: The file; weights go to `<path>.data` next to it.
        dtype: Of weights and activations, float32 or float16.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self._onnx = import_onnx()
        self.path = path
        self.dtype = np.dtype(dtype)
        self._data_path = path.with_name(f"{path.name}.data")
        self._data = self._data_path.open("wb")
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._constants: dict[str, str] = {}
        self._count = 0

    @property
    def element_type(self) -> int:
        """ONNX's number of the dtype."""
        number: int = self._onnx.helper.np_dtype_to_tensor_dtype(self.dtype)
        return number

    def weight(self, name: str, values: Array) -> str:
        """Write a tensor of weights and return its name.

        Raises:
            CheckpointError: A weight does not fit into float16.
        """
        fix = "Write it with --type f32."
        narrow = to_float16(values, name, fix) if self.dtype == np.float16 else values
        stored = np.ascontiguousarray(narrow, self.dtype)
        self._data.write(bytes(-self._data.tell() % _ALIGNMENT))
        tensor = self._onnx.TensorProto(
            name=name, dims=stored.shape, data_type=self.element_type, raw_data=b""
        )
        self._onnx.external_data_helper.set_external_data(
            tensor, self._data_path.name, offset=self._data.tell(), length=stored.nbytes
        )
        tensor.ClearField("raw_data")
        self._data.write(stored.data)
        self._weights.append(tensor)
        return name

    def constant(self, values: Sequence[int] | float) -> str:
        """Return the name of a small constant: a list of whole numbers, or one float."""
        array = np.array(values, self.dtype if isinstance(values, float) else np.int64)
        key = f"{array.dtype}{array.tolist()}"
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._weights.append(self._onnx.numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return that one's name."""
        self._count += 1
        name = f"{operator.lower()}_{self._count}"
        node = self._onnx.helper.make_node(operator, inputs, [name], name, **attributes)
        self._nodes.append(node)
        return name

    def rename(self, value: str, name: str) -> str:
        """Give a value a name of our choice."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name], name))
        return name

    def linear(self, x: str, name: str, weight: Array, bias: Array | None) -> str:
        """``x W^T + b`` with the checkpoint's orientation of W, (out, in)."""
        y = self.node("MatMul", x, self.weight(f"{name}.weight", weight.T))
        return y if bias is None else self.node("Add", y, self.weight(f"{name}.bias", bias))

    def layer_norm(self, x: str, name: str, weight: Array, bias: Array, eps: float) -> str:
        """LayerNorm over the last axis."""
        parameters = (self.weight(f"{name}.weight", weight), self.weight(f"{name}.bias", bias))
        return self.node("LayerNormalization", x, *parameters, axis=-1, epsilon=eps)

    def gelu(self, x: str) -> str:
        """The exact GELU, x (1 + erf(x / sqrt 2)) / 2."""
        turned = self.node("Erf", self.node("Mul", x, self.constant(math.sqrt(0.5))))
        halved = self.node("Mul", x, self.constant(0.5))
        return self.node("Mul", halved, self.node("Add", turned, self.constant(1.0)))

    def quick_gelu(self, x: str) -> str:
        """CLIP's x sigmoid(slope x)."""
        gate = self.node("Sigmoid", self.node("Mul", x, self.constant(QUICK_GELU_SLOPE)))
        return self.node("Mul", x, gate)

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape; 0 keeps an extent, -1 takes what is left."""
        return self.node("Reshape", x, self.constant(shape))

    def transpose(self, x: str, *order: int) -> str:
        """Reorder axes."""
        return self.node("Transpose", x, perm=order)

    def save(
        self,
        inputs: dict[str, tuple[int | str, ...]],
        outputs: dict[str, tuple[int | str, ...]],
        name: str,
    ) -> None:
        """Write the file; names stand for extents that are left open."""
        helper = self._onnx.helper

        def described(values: dict[str, tuple[int | str, ...]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(key, self.element_type, shape)
                for key, shape in values.items()
            ]

        graph = helper.make_graph(
            self._nodes, name, described(inputs), described(outputs), self._weights
        )
        model = helper.make_model(
            graph,
            producer_name="mvlm",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        self.close()
        self.path.write_bytes(model.SerializeToString())
        with utf8_folder(self.path.parent) as place:
            self._onnx.checker.check_model(str(place / self.path.name))

    def close(self) -> None:
        """Close the file of weights."""
        self._data.close()
