"""How a checkpoint's tensors compare with what the model needs."""

from __future__ import annotations

from dataclasses import dataclass

from mvlm.models.checkpoint.quantized import quantizer
from mvlm.models.weight_files.tensor_file import FLOAT_DTYPES, USE_UNQUANTIZED, listed
from mvlm.runtime.errors import CheckpointError


@dataclass(frozen=True)
class Report:
    """The differences by name, each group sorted.

    Args:
        missing: Needed and not there.
        unexpected: There, not needed, and not known to be harmless.
        misshapen: Name, needed shape, shape found.
        mistyped: Name and dtype of tensors that are not float32, float16 or bfloat16.
        ignored: There, not needed, and known to be harmless, such as a CLIP's text tower.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    mistyped: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether the model can be built from these tensors and none is left over."""
        return not (self.missing or self.unexpected or self.misshapen or self.mistyped)

    def raise_if_bad(self) -> None:
        """Raise unless :attr:`is_good`.

        Raises:
            CheckpointError: Names the tool that has quantized the weights; or lists the first few
                names of each group, and counts them.
        """
        if self.is_good:
            return
        if tool := quantizer(self.unexpected):
            raise CheckpointError(
                f"the checkpoint's weights are quantized with {tool}",
                expected=f"weights in {' or '.join(FLOAT_DTYPES)}",
                found=listed(self.unexpected),
                fix=USE_UNQUANTIZED,
            )
        groups = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "misshapen": [
                f"{name} (expected {shape_text(expected)}, found {shape_text(found)})"
                for name, expected, found in self.misshapen
            ],
            f"not {'/'.join(FLOAT_DTYPES)}": [f"{name} ({dtype})" for name, dtype in self.mistyped],
        }
        raise CheckpointError(
            "the checkpoint's tensors do not fit its config.json: "
            + "; ".join(
                f"{len(names)} {group}: {listed(names)}" for group, names in groups.items() if names
            ),
            fix="Download the weights and the config.json from the same place again.",
        )


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape for a message: `32000x2048`."""
    return "x".join(map(str, shape)) or "a scalar"
