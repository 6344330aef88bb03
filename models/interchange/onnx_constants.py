"""Refuses NaN and infinity among the constants of an ONNX graph that comes from outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mvlm.models.interchange.onnx_graph import import_onnx
from mvlm.models.weight_files.tensor_file import Array, check_finite
from mvlm.runtime.errors import CheckpointError


def check_constants(path: Path, graph: Any, allow_nonfinite: bool) -> None:
    """Check every initializer and every constant of a graph and of the graphs inside it.

    A single infinite number is not refused: masks and the bounds of `Clip` are written so. NaN is.

    Args:
        path: The file, for the message.
        graph: A `GraphProto` whose data has been loaded; changed where values are replaced.
        allow_nonfinite: Replace such values as :func:`check_finite` does, not refuse them.

    Raises:
        CheckpointError: A constant holds NaN or infinity, or is damaged.
    """
    onnx = import_onnx()

    def sound(name: str, values: Array) -> Array:
        is_float = "float" in values.dtype.name
        if not is_float or (values.size == 1 and not np.isnan(values.astype(np.float64)).any()):
            return values
        return check_finite(f"{name} of {path}", values, allow=allow_nonfinite)

    for name, tensor in _tensors(graph):
        try:
            values = np.asarray(onnx.numpy_helper.to_array(tensor))
        # The package documents no errors; a tensor may claim another size than its data have.
        except Exception as error:
            reason = str(error).partition("\n")[0][:200]
            raise CheckpointError(f"{path}: the constant {name} is damaged ({reason})") from None
        replaced = sound(name, values)
        if replaced is not values:
            stored = replaced.astype(values.dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(stored, tensor.name))
    for name, attribute in _attributes(graph):
        if attribute.floats:
            attribute.floats[:] = sound(name, np.array(attribute.floats, np.float32)).tolist()
        if attribute.HasField("f"):
            attribute.f = float(sound(name, np.array([attribute.f], np.float32))[0])


def _attributes(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of every node, with a name for each."""
    for node in graph.node:
        for attribute in node.attribute:
            yield (node.output[0] if node.output else node.name), attribute
            for inner in (attribute.g, *attribute.graphs):
                yield from _attributes(inner)


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield the initializers and the tensors of attributes, with a name for each."""
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            name = node.output[0] if node.output else node.name
            if attribute.HasField("t"):
                yield name, attribute.t
            yield from ((name, tensor) for tensor in attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
