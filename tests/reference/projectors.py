"""MobileVLM's projectors, written out in torch from the papers and the official layer list.

Each takes the checkpoint's tensors below `model.mm_projector.` and tokens of shape (batch,
patches, channels). The functions of one operation each are module globals, so that a test can
put a typical mistake in the place of one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = Mapping[str, Tensor]

LAYER_NORM_EPS = 1e-5


def project(kind: str, tensors: Tensors, tokens: Tensor) -> Tensor:
    """Apply the projector that `mm_projector_type` names."""
    if kind == "linear":
        return F.linear(tokens, tensors["weight"], tensors["bias"])
    if match := re.fullmatch(r"mlp(\d+)x_gelu", kind):
        return _mlp(tensors, tokens, [f"{2 * index}" for index in range(int(match[1]))])
    if kind.startswith("ldpnetv2"):
        return _ldpnetv2(tensors, tokens)
    if kind.startswith("ldpnet"):
        return _ldpnet(tensors, tokens)
    raise ValueError(kind)


def projector_shapes(kind: str, width_in: int, width: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor below `model.mm_projector.`."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inner: int = width) -> None:
        shapes.update({f"{name}weight": (width, inner), f"{name}bias": (width,)})

    if kind == "linear":
        linear("", width_in)
    elif match := re.fullmatch(r"mlp(\d+)x_gelu", kind):
        for index in range(int(match[1])):
            linear(f"{2 * index}.", width if index else width_in)
    elif kind.startswith("ldpnetv2"):
        linear("mlp.mlp.0.", width_in)
        linear("mlp.mlp.2.")
        shapes.update({"peg.peg.0.weight": (width, 1, 3, 3), "peg.peg.0.bias": (width,)})
    elif kind.startswith("ldpnet"):
        linear("model.mlp.1.", width_in)
        linear("model.mlp.3.")
        for block in ("model.mb_block.1.block.", "model.mb_block.2.block."):
            shapes.update(_block_shapes(block, width))
    else:
        raise ValueError(kind)
    return shapes


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="none")


def hardswish(x: Tensor) -> Tensor:
    return F.hardswish(x)


def hardsigmoid(x: Tensor) -> Tensor:
    return F.hardsigmoid(x)


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """LayerNorm over the channels of (batch, channels, height, width)."""
    last = x.permute(0, 2, 3, 1)
    return F.layer_norm(last, weight.shape, weight, bias, LAYER_NORM_EPS).permute(0, 3, 1, 2)


def _mlp(tensors: Tensors, tokens: Tensor, names: list[str]) -> Tensor:
    for index, name in enumerate(names):
        tokens = gelu(tokens) if index else tokens
        tokens = F.linear(tokens, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
    return tokens


def _to_grid(tokens: Tensor) -> Tensor:
    batch, count, channels = tokens.shape
    side = math.isqrt(count)
    return tokens.transpose(1, 2).reshape(batch, channels, side, side)


def _to_tokens(grid: Tensor) -> Tensor:
    return grid.flatten(2).transpose(1, 2)


def _ldpnetv2(tensors: Tensors, tokens: Tensor) -> Tensor:
    """LDPv2 (MobileVLM V2, section 3.3): MLP, average pooling, positional depthwise convolution."""
    grid = _to_grid(_mlp(tensors, tokens, ["mlp.mlp.0", "mlp.mlp.2"]))
    grid = F.adaptive_avg_pool2d(grid, (12, 12))
    weight, bias = tensors["peg.peg.0.weight"], tensors["peg.peg.0.bias"]
    return _to_tokens(grid + F.conv2d(grid, weight, bias, padding=1, groups=grid.shape[1]))


def _ldpnet(tensors: Tensors, tokens: Tensor) -> Tensor:
    """LDP (MobileVLM, section 3.4): MLP, then two inverted residual blocks of MobileNetV3."""
    grid = _to_grid(_mlp(tensors, tokens, ["model.mlp.1", "model.mlp.3"]))
    grid = grid + _block(tensors, "model.mb_block.1.block.", grid, stride=1)
    return _to_tokens(_block(tensors, "model.mb_block.2.block.", grid, stride=2))


def _block(tensors: Tensors, block: str, x: Tensor, stride: int) -> Tensor:
    def get(name: str) -> Tensor:
        return tensors[block + name]

    x = F.conv2d(x, get("0.0.weight"), stride=stride, padding=1, groups=x.shape[1])
    x = hardswish(channel_norm(x, get("0.1.weight"), get("0.1.bias")))
    squeezed = F.conv2d(x.mean((2, 3), keepdim=True), get("1.fc1.weight"), get("1.fc1.bias"))
    scale = F.conv2d(torch.relu(squeezed), get("1.fc2.weight"), get("1.fc2.bias"))
    x = F.conv2d(x * hardsigmoid(scale), get("2.0.weight"))
    return channel_norm(x, get("2.1.weight"), get("2.1.bias"))


def _block_shapes(block: str, width: int) -> dict[str, tuple[int, ...]]:
    # MobileNetV3 rounds to a multiple of 8 and never loses over a tenth; the widths used here
    # need no more than the rounding.
    squeezed = max(8, int(width / 4 / 8 + 0.5) * 8)
    return {
        block + name: shape
        for name, shape in {
            "0.0.weight": (width, 1, 3, 3),
            "0.1.weight": (width,),
            "0.1.bias": (width,),
            "1.fc1.weight": (squeezed, width, 1, 1),
            "1.fc1.bias": (squeezed,),
            "1.fc2.weight": (width, squeezed, 1, 1),
            "1.fc2.bias": (width,),
            "2.0.weight": (width, width, 1, 1),
            "2.1.weight": (width,),
            "2.1.bias": (width,),
        }.items()
    }
