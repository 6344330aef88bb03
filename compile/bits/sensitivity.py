"""Measures what it costs the model to round one unit of a layer, all else exact.

The cost is the mean divergence (Kullback-Leibler, in nats) of the distributions of next tokens from
those of the model in float32. Every layer's exact inputs are kept, so that a unit of layer l costs
a run of the layers from l on, three units at a time.

Only the smallest scheme is measured. A loss is quadratic in a small change of the weights, and
another scheme's change of the same unit is much like it, but smaller: its loss is the measured one
times the ratio of the squared errors in the outputs of the unit's matrices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mvlm.compile.bits.losses import LayerLosses, LossFolder
from mvlm.compile.bits.next_tokens import NextTokens
from mvlm.compile.bits.output_errors import output_errors, rounded
from mvlm.compile.bits.samples import planning_samples
from mvlm.compile.calibration.calibrate import Calibration, Part
from mvlm.compile.calibration.parts import Parts
from mvlm.compile.calibration.rounded_weights import RoundedWeights
from mvlm.compile.calibration_data.samples import CalibrationData
from mvlm.compile.job import CompileJob
from mvlm.models.observed import FLOAT32
from mvlm.models.quantization import PLAN_SCHEMES, UNITS, find_scheme
from mvlm.runtime.errors import CheckpointError
from mvlm.runtime.progress import Progress, no_progress

Float32Array = npt.NDArray[np.float32]
Rows = list[Float32Array]

MEASURED = PLAN_SCHEMES[0]
"""The scheme that is measured: it has the least bits, so its losses stand out most."""

# Inputs of a layer, of each sample, that output errors are taken from.
_INPUTS = 32
_STEP = "measure layers"


class Sensitivity:
    """The measurement for one checkpoint.

    Args:
        job: The checkpoint; its quantization does not matter.
        output: Where finished layers go, and where they are found again.
        progress: Called as the work proceeds; what it raises ends the measurement.
    """

    def __init__(
        self, job: CompileJob, output: LossFolder, progress: Progress = no_progress
    ) -> None:
        config = job.config
        samples = planning_samples(job.planning_data, config.image_tokens)
        data = CalibrationData(samples, ())
        # Nothing is rounded, so nothing goes into the folder.
        exact = replace(job, quantization=FLOAT32)
        self._samples, self._image_tokens = samples, config.image_tokens
        self._model = Calibration(exact, data, RoundedWeights(Path(), ""))
        self._layers = list(self._model.decoder_parts())
        self._read = self._model.read
        self._output, self._progress = output, progress
        count = len(self._layers)
        self._done, self._total = 0, count + len(UNITS) * count * (count + 1) // 2

    def run(self) -> tuple[LayerLosses, ...]:
        """Measure all units.

        Returns:
            Each layer's losses, from the first layer on.

        Raises:
            CheckpointError: A weight, or what the model computes, is not finite.
        """
        positions = [each.positions(self._image_tokens) for each in self._samples]
        parts = Parts(self._model.observed, max(positions))
        inputs = [self._model.decoder_inputs(parts)]
        errors = []
        for part in self._layers:
            outputs, found = self._run_exact(parts, part, inputs[-1])
            inputs.append(outputs)
            errors.append(found)
            self._step()
        self._model.load_norm(parts)
        head = self._model.decoder.lm_head.matrix(self._read).astype(np.float32)
        exact = NextTokens(head, [parts.run("head", each)[0] for each in inputs[-1]])
        for index in range(len(self._layers)):
            if self._output.read(index) is not None:
                self._step(len(UNITS) * (len(self._layers) - index))
                continue
            measured = self._measure(parts, index, inputs[index], exact)
            nats = {unit: value / sum(positions) for unit, value in measured.items()}
            self._output.write(index, _scaled(nats, errors[index]))
        losses = self._output.read_all(len(self._layers))
        if losses is None:
            raise _not_finite()
        return losses

    def _run_exact(
        self, parts: Parts, part: Part, rows: Rows
    ) -> tuple[Rows, dict[str, dict[str, float]]]:
        """Run a layer, and return its outputs and its units' output errors by scheme."""
        self._model.load(parts, part, {})
        outputs, read = Rows(), defaultdict[str, Rows](list)
        for each in rows:
            output, inputs = self._model.observe(parts, part, each)
            outputs.append(output)
            for own, value in inputs.items():
                read[own].append(value[0, :: -(-value.shape[1] // _INPUTS)])
        errors = {unit: dict.fromkeys(PLAN_SCHEMES, 0.0) for unit in UNITS}
        for name, own, layer in part.layers():
            matrix = layer.matrix(self._read).astype(np.float32)
            for scheme, error in output_errors(matrix, np.concatenate(read[own])).items():
                errors[_unit(name, part)][scheme] += error
        return outputs, errors

    def _measure(
        self, parts: Parts, index: int, rows: Rows, exact: NextTokens
    ) -> Mapping[str, float]:
        """Return the divergence, summed over positions, that rounding each unit makes."""
        streams = {}
        for unit, matrices in self._rounded_units(self._layers[index]):
            self._model.load(parts, self._layers[index], matrices)
            streams[unit] = self._run(parts, self._layers[index], rows)
        for part in self._layers[index + 1 :]:
            self._model.load(parts, part, {})
            for unit, stream in streams.items():
                streams[unit] = self._run(parts, part, stream)
        return {
            unit: sum(
                exact.divergence(sample, parts.run("head", each)[0])
                for sample, each in enumerate(stream)
            )
            for unit, stream in streams.items()
        }

    def _rounded_units(self, part: Part) -> Iterator[tuple[str, dict[str, Float32Array]]]:
        scheme = find_scheme(MEASURED)
        for unit in UNITS:
            yield (
                unit,
                {
                    name: rounded(layer.matrix(self._read).astype(np.float32), scheme)
                    for name, _, layer in part.layers()
                    if _unit(name, part) == unit
                },
            )

    def _run(self, parts: Parts, part: Part, rows: Sequence[Float32Array]) -> Rows:
        outputs = [parts.run(part.function, each)[0] for each in rows]
        self._step()
        return outputs

    def _step(self, count: int = 1) -> None:
        self._done += count
        self._progress(_STEP, self._done, self._total)


def _unit(name: str, part: Part) -> str:
    """Return the unit that a linear layer belongs to."""
    return name.removeprefix(f"{part.place}.").partition(".")[0]


def _scaled(
    measured: Mapping[str, float], errors: Mapping[str, Mapping[str, float]]
) -> LayerLosses:
    """Return the losses of all schemes by those of the measured one."""
    losses = {}
    for unit, loss in measured.items():
        known = errors[unit][MEASURED]
        # Rounding of the sums may leave less than nothing of a loss that is near zero.
        losses[unit] = {
            name: max(loss, 0.0) * (error / known if known > 0 else 0.0)
            for name, error in errors[unit].items()
        }
    return losses


def _not_finite() -> CheckpointError:
    return CheckpointError(
        "the layers' losses cannot be measured",
        expected="a model that computes finite numbers",
        found="logits with NaN or infinity",
        fix="Compile it without --bits, to see which layer computes them.",
    )
