"""The configuration of the projector, which turns patch tokens into decoder embeddings."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mvlm.models.json_config import check_choice, check_integer, short_repr
from mvlm.runtime.errors import ConfigError

KINDS = ("ldpnet", "ldpnetv2", "linear", "mlp")

# LDPv2 pools any grid to this many tokens along a side (MobileVLM V2, section 3.3).
_LDPV2_GRID = 12


@dataclass(frozen=True)
class ProjectorConfig:
    """One of the projectors that MobileVLM knows.

    Args:
        kind: `ldpnet`, the LDP of the MobileVLM paper (section 3.4); `ldpnetv2`, the LDPv2 of
            the V2 paper (section 3.3); `linear`; or `mlp`, linear layers with exact GELU between.
        depth: Linear layers: 1 for `linear`, 2 inside both LDPs, any number for `mlp`.
        in_features: Channels of the vision tower.
        out_features: Channels of the decoder.

    Raises:
        ConfigError: A value is of the wrong type, out of range, or contradicts another.
    """

    kind: str
    depth: int
    in_features: int
    out_features: int

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        low, high = {"linear": (1, 1), "mlp": (1, 64)}.get(self.kind, (2, 2))
        check_integer("depth", self.depth, low, high)
        check_integer("in_features", self.in_features, 1, 2**16)
        check_integer("out_features", self.out_features, 1, 2**16)

    @property
    def is_v2(self) -> bool:
        """Whether this is a MobileVLM V2, whose checkpoint has the tower's weights inside."""
        return self.kind == "ldpnetv2"

    @property
    def needs_grid(self) -> bool:
        """Whether the tokens must form a square, as both LDPs ask."""
        return self.kind in ("ldpnet", "ldpnetv2")

    @property
    def squeeze_channels(self) -> int:
        """Channels inside the LDP's squeeze-and-excitation, as MobileNetV3 rounds them.

        A quarter of the channels, to the nearest multiple of 8 (halves up, at least 8), and one
        multiple more where that took away over a tenth.
        """
        quarter = self.out_features // 4
        rounded = max(8, (quarter + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * quarter else rounded

    def num_tokens(self, num_patches: int) -> int:
        """How many embeddings come out for `num_patches` tokens going in.

        Raises:
            ConfigError: This projector needs a square grid and `num_patches` is no square.
        """
        if not self.needs_grid:
            return num_patches
        grid = math.isqrt(num_patches)
        if grid**2 != num_patches:
            raise ConfigError(
                f"the projector `{self.kind}` needs a square grid of patches", found=num_patches
            )
        # LDP's second depthwise convolution has stride 2 and padding 1.
        return _LDPV2_GRID**2 if self.kind == "ldpnetv2" else ((grid + 1) // 2) ** 2


def parse_projector_type(name: object) -> tuple[str, int]:
    """Read an `mm_projector_type` as MobileVLM's own loader does.

    Returns:
        The kind and the depth of a :class:`ProjectorConfig`.

    Raises:
        ConfigError: No such projector is known.
    """
    if name == "linear":
        return "linear", 1
    if isinstance(name, str):
        if match := re.fullmatch(r"mlp([0-9]{1,4})x_gelu", name):
            # `mlp0x_gelu` is one linear layer too: the first is there before any is counted.
            return "mlp", max(1, int(match[1]))
        if name.startswith("ldpnetv2"):
            return "ldpnetv2", 2
        # A later `v2` would mean this projector with a tower inside, which nobody published.
        if name.startswith("ldpnet") and "v2" not in name:
            return "ldpnet", 2
    raise ConfigError(
        "unknown projector in `mm_projector_type`",
        expected="linear, mlp<N>x_gelu, ldpnet or ldpnetv2",
        found=short_repr(name),
        fix="Use a checkpoint with one of these projectors.",
    )
