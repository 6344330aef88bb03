"""What a job is calibrated with. Imports no tvm."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mvlm.compile.calibration_data.data import DrawSettings, read_samples
from mvlm.compile.calibration_data.model_input import ModelInput
from mvlm.compile.calibration_data.samples import CalibrationData

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
        cls, names: list[Path], images: Path | None = None, draw: DrawSettings | None = None
    ) -> CalibrationRequest:
        """Return the request for files as a user names them: `DEFAULT_DATA` is the default data."""
        sources = tuple(name for name in names if str(name) != DEFAULT_DATA)
        return cls(sources, images, draw or DrawSettings())

    def read(self, model: ModelInput) -> CalibrationData:
        """Draw the data.

        Raises:
            UsageError: A file is absent, not in its format or over a limit; or there is too little.
        """
        return read_samples(self.sources, self.images, model, self.draw)
