"""What jobs are calibrated with: as a matrix asks for it, and in plain values for workers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mvlm.compile.calibration_data.data import DrawSettings
from mvlm.compile.calibration_data.request import DEFAULT_DATA, CalibrationRequest
from mvlm.compile.calibration_data.samples import CalibrationData
from mvlm.compile.job import CompileJob
from mvlm.compile.jobs.matrix import Cell
from mvlm.runtime.artifact.json_object import JsonObject


@dataclass(frozen=True)
class CalibrationSpec:
    """What a job is calibrated with, in plain values.

    Attributes:
        sources: Files, by absolute paths; the default data if there are none.
        images: The folder of the images that they name, or None.
        tokens: See :class:`DrawSettings`, as for the next two.
        length: Positions of one sample.
        seed: Chooses what is drawn.
        digest: Of what was drawn where the matrix was planned.
    """

    sources: tuple[str, ...]
    images: str | None
    tokens: int
    length: int
    seed: int
    digest: str

    @classmethod
    def of(cls, request: CalibrationRequest, digest: str) -> CalibrationSpec:
        """Return that of a request, and of what it draws."""
        sources = tuple(str(path.absolute()) for path in request.sources)
        images = None if request.images is None else str(request.images.absolute())
        return cls(sources, images, **asdict(request.draw), digest=digest)

    def request(self) -> CalibrationRequest:
        """Return the request.

        Raises:
            UsageError: A number is out of range.
        """
        images = None if self.images is None else Path(self.images)
        draw = DrawSettings(self.tokens, self.length, self.seed)
        return CalibrationRequest(tuple(map(Path, self.sources)), images, draw)


def read_calibration(job: JsonObject) -> CalibrationSpec | None:
    """Read a job's calibration from a request; None where it is not calibrated.

    Raises:
        ArtifactError: It is not what :class:`CalibrationSpec` holds.
    """
    if job.optional("calibration", dict) is None:
        return None
    found = job.child("calibration")
    return CalibrationSpec(
        sources=found.list_of("sources", str),
        images=found.optional("images", str),
        tokens=found.get("tokens", int),
        length=found.get("length", int),
        seed=found.get("seed", int),
        digest=found.get("digest", str),
    )


@dataclass(frozen=True)
class PlannedCalibration:
    """What the jobs of a model and a quantization are calibrated with.

    Attributes:
        request: What the matrix asks for; None if they are not calibrated.
        data: What was drawn for the model.
    """

    request: CalibrationRequest | None
    data: CalibrationData | None = None

    @classmethod
    def asked_by(cls, cell: Cell) -> PlannedCalibration:
        """Return what a matrix asks for; its paths are relative to its file. Nothing is drawn.

        Raises:
            UsageError: A number is out of range, or the default data are named beside files.
        """
        entry, folder = cell.quantization, cell.file.parent
        if entry.calibrate is None:
            return cls(None)
        names = [Path(each) if each == DEFAULT_DATA else folder / each for each in entry.calibrate]
        images = folder / entry.calibration_images if entry.calibration_images else None
        tokens, seed = entry.calibration_tokens, entry.calibration_seed
        return cls(CalibrationRequest.of(names, images, tokens, seed))

    def drawn_for(self, model: CompileJob) -> PlannedCalibration:
        """Return it with the data that are drawn for a model.

        Raises:
            CheckpointError: The model has no tokenizer.
            UsageError: A file is absent, not in its format or over a limit; or there is too little.
        """
        return replace(self, data=replace(model, calibration=self.request).calibration_data)

    def spec(self) -> CalibrationSpec | None:
        """Return it in plain values; None if the jobs are not calibrated."""
        if self.request is None or self.data is None:
            return None
        return CalibrationSpec.of(self.request, self.data.digest)
