"""A roofline estimate of encoding an image on the Snapdragon 888.

Run as ``python -m mvlm.bench.studies.vision_roofline``.

Nearly all of an image's time goes into the tower's linear layers, and theirs into one loop over
many rows. It is compiled for the device, its instructions are counted, and the cores are assumed
to issue them as their description says, everything in the caches: nothing here has run on one.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from tvm.target import Target

from mvlm.bench.docs_table import write_table
from mvlm.bench.studies.instructions import DOCUMENT, KRYO, PROCESSORS, kernel_loop, layer_kernel
from mvlm.bench.studies.roofline import LoopWork, fast_cores, iterations_s, loop_work
from mvlm.models.ops.linear import linear_signature
from mvlm.models.quantization import SCHEMES
from mvlm.models.weight_layout import LinearFormat
from mvlm.schedules.cpu.panels import PANELS

# CLIP ViT-L/14 at 336 pixels, all layers but the last, and LDPv2's two linear layers for 2,048.
_LAYERS, _TOKENS, _PATCHES, _WIDTH, _INNER, _HIDDEN = 23, 577, 576, 1024, 4096, 2048
_PATCH = 14 * 14 * 3
# Products that an instruction makes, by the scheme of the tower.
_PRODUCTS = {"q8a8": {"sdot": 16}, "q16a16": {"smlal": 4, "smull": 4}}


@dataclass(frozen=True)
class TowerLoop:
    """The loop of a linear layer over many rows.

    Attributes:
        scheme: Of the tower.
        products: Multiplications of an iteration.
        work: What an iteration asks of a core.
    """

    scheme: str
    products: int
    work: LoopWork

    @property
    def seconds(self) -> float:
        """Estimated for all of an image's linear layers, a thread on each fast core."""
        return image_products() / (self.products * iterations_s(fast_cores(KRYO), self.work))


def image_products() -> int:
    """Count the multiplications of the linear layers that an image goes through."""
    layer = 4 * _WIDTH * _WIDTH + 2 * _WIDTH * _INNER
    projector = _WIDTH * _HIDDEN + _HIDDEN * _HIDDEN
    return _LAYERS * layer * _TOKENS + _PATCHES * (_PATCH * _WIDTH + projector)


def compile_tower_loop(scheme: str) -> TowerLoop:
    """Compile the largest of the tower's layers for the device, and read its loop."""
    target, made = Target(dict(PROCESSORS[0].target)), _PRODUCTS[scheme]
    op = linear_signature(LinearFormat(SCHEMES[scheme], PANELS), _TOKENS, _WIDTH, _INNER, bias=True)
    body = kernel_loop(layer_kernel(op, target), target, next(iter(made)))
    products = sum(made.get(each.mnemonic.removesuffix("2"), 0) for each in body)
    return TowerLoop(scheme, products, loop_work(body))


def table(loops: list[TowerLoop]) -> str:
    """Write the estimates as Markdown."""
    lines = [
        f"| tower, estimated, {KRYO.cpu.threads} threads | instructions per 1,000 products "
        "| linear layers of one image |",
        "|---|--:|--:|",
    ]
    lines += [
        f"| `{loop.scheme}` | {1000 * loop.work.instructions / loop.products:.0f} "
        f"| {loop.seconds:.1f} s |"
        for loop in loops
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, or put it into the documentation."""
    parser = argparse.ArgumentParser(
        prog="python -m mvlm.bench.studies.vision_roofline", description=__doc__
    )
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args()
    text = table([compile_tower_loop(scheme) for scheme in _PRODUCTS])
    print(text)
    if options.write:
        write_table(DOCUMENT, "vision-roofline", text)


if __name__ == "__main__":
    main()
