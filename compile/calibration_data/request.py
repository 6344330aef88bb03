"""What a job is calibrated with. Imports no tvm."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mvlm.compile.calibration_data.data import DrawSettings, read_samples
from mvlm.compile.calibration_data.model_input import ModelInput
from mvlm.compile.calibration_data.samples import CalibrationData
from mvlm.runtime.errors import UsageError

DEFAULT_DATA = "default"
"""The name of the data that mvlm ships, in the place of a file."""


@dataclass(frozen=True)
class CalibrationRequest:
    """Data to calibrate with.

    Attributes:
        sources: Files (see `read_samples`); the default data if there are none.
        images: The folder that images' names are relative to; each file's own folder if None.
        draw: How much of it is drawn.
    """

    sources: tuple[Path, ...] = ()
    images: Path | None = None
    draw: DrawSettings = field(default_factory=DrawSettings)

    @classmethod
    def of(
        cls,
        names: list[Path],
        images: Path | None = None,
        tokens: int | None = None,
        seed: int | None = None,
    ) -> CalibrationRequest:
        """Return the request for what a user says; None stands for a default.

        Args:
            names: Files, or `DEFAULT_DATA` alone.
            images: The folder that images' names are relative to.
            tokens: See :class:`DrawSettings`.
            seed: The same.

        Raises:
            UsageError: A number is out of range, or `DEFAULT_DATA` is named beside files.
        """
        sources = tuple(name for name in names if str(name) != DEFAULT_DATA)
        if sources and len(sources) < len(names):
            raise UsageError(
                "calibration takes its default data or files",
                expected=f"`{DEFAULT_DATA}` alone, or files alone",
                found=f"`{DEFAULT_DATA}` and {sources[0]}",
            )
        chosen = {"tokens": tokens, "seed": seed}
        settings = {name: value for name, value in chosen.items() if value is not None}
        return cls(sources, images, DrawSettings(**settings))

    def read(self, model: ModelInput) -> CalibrationData:
        """Draw the data.

        Raises:
            UsageError: A file is absent, not in its format or over a limit; or there is too little.
        """
        return read_samples(self.sources, self.images, model, self.draw)
