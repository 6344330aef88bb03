"""Calibrates a model: rounds its matrices a part at a time, by the inputs that they see.

The samples pass through the model part by part. A part's linear layers are rounded by the second
moments of their inputs, and the part is then run again with the rounded weights: later parts see
the inputs that the compiled model will give them. Finished parts are in a folder, and a calibration
that was interrupted goes on behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
from tvm.relax.frontend import nn

from mvlm.compile.calibration.matrix_rounding import round_matrix
from mvlm.compile.calibration.moments import SecondMoments
from mvlm.compile.calibration.parts import Parts
from mvlm.compile.calibration.rounded_weights import LayerReport, RoundedPart, RoundedWeights
from mvlm.compile.calibration.selection import is_calibrated
from mvlm.compile.calibration_data.samples import CalibrationData, Sample
from mvlm.compile.job import CompileJob
from mvlm.models.layers import Array, Linear, ReadTensor, packed_layers
from mvlm.models.mobilevlm import MobileVLM
from mvlm.models.observed import FLOAT32, ObservedMobileVLM
from mvlm.models.quantization import QuantizedMatrix, Scheme, dequantize
from mvlm.runtime.progress import Progress, no_progress
from mvlm.runtime.targets import find_description
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID
from mvlm.schedules.registry import find_layout

Float32Array = npt.NDArray[np.float32]
Rows = list[Float32Array]
_STEP = "calibrate"


@dataclass(frozen=True)
class Part:
    """A part of the model that is run and rounded as a whole.

    Attributes:
        name: Of its file.
        function: The observed model's function that runs it.
        module: Its layers, in float32.
        place: The module's name in the model.
        first: The name of the module whose weights the function reads.
    """

    name: str
    function: str
    module: nn.Module
    place: str
    first: str

    def layers(self) -> Iterator[tuple[str, str, Linear]]:
        """Yield each linear layer's name in the model and in the function, and the layer."""
        for name, layer in packed_layers(self.module, self.place):
            if isinstance(layer, Linear):
                yield name, self.first + name.removeprefix(self.place), layer


class Calibration:
    """The calibration of one job's model.

    Args:
        job: The checkpoint and its quantization; nothing else of the target matters.
        data: What the model reads.
        output: Where finished parts go, and where they are found again.
        progress: Called as the work proceeds; what it raises ends the calibration.

    Attributes:
        observed: The parts that are run.
        decoder: The decoder's layers, in float32.
        read: Reads the checkpoint.
    """

    def __init__(
        self,
        job: CompileJob,
        data: CalibrationData,
        output: RoundedWeights,
        progress: Progress = no_progress,
    ) -> None:
        self._config, self._data, self._output = job.config, data, output
        self.read = job.open_checkpoint().read
        # Whatever the job's target is, the parts run on this machine, by its kernels: so all
        # targets get the same matrices.
        layout = find_layout(find_description("host").kernels)
        self._model = MobileVLM(job.config, FLOAT32, layout)
        self.observed = ObservedMobileVLM(job.config, layout, job.quantization.embedding)
        self.decoder = self._model.decoder
        self._schemes = _schemes_to_round(job.build_model())
        self._progress = progress
        self._done, self._total = 0, 1
        self._reports: dict[str, tuple[LayerReport, ...]] = {}

    def run(self) -> dict[str, tuple[LayerReport, ...]]:
        """Round all matrices whose format calibration helps.

        Returns:
            What became of the layers of each part.

        Raises:
            CheckpointError: A weight, or the input of a layer, is not finite.
        """
        samples = self._data.samples
        longest = max(each.positions(self._config.image_tokens) for each in samples)
        images = sum(len(each.images) for each in samples)
        self._total = self._steps(self._vision_parts(), images)
        self._total += self._steps(self.decoder_parts(), len(samples)) + len(samples) + 1
        parts = Parts(self.observed, longest)
        rows = self.decoder_inputs(parts)
        for part in self.decoder_parts():
            rows = self._run_part(parts, part, rows)
        self._round_head(parts, rows)
        self._output.finish(self._reports)
        return self._reports

    def decoder_inputs(self, parts: Parts) -> Rows:
        """Return the decoder's input for each sample, ``(1, n, H)``."""
        return self._embed(parts, self._run_vision(parts))

    def _steps(self, parts: Iterable[Part], inputs: int) -> int:
        """Count the steps of parts: running them, and where they are rounded, observing that."""
        counts = [sum(name in self._schemes for name, _, _ in part.layers()) for part in parts]
        return sum(inputs + (inputs + matrices if matrices else 0) for matrices in counts)

    def decoder_parts(self) -> Iterator[Part]:
        """Yield the decoder's layers."""
        for index, layer in enumerate(self.decoder.layers):
            place = f"decoder.layers.{index}"
            yield Part(f"layer-{index:02}", "decoder_layer", layer, place, "decoder.layers.0")

    def _vision_parts(self) -> Iterator[Part]:
        if self._config.vision is None:
            return
        tower = self._model.tower
        yield Part("tower-begin", "tower_begin", tower.embeddings, *["tower.embeddings"] * 2)
        for index, layer in enumerate(tower.layers):
            place = f"tower.layers.{index}"
            yield Part(f"tower-{index:02}", "tower_layer", layer, place, "tower.layers.0")
        projector = self._model.image_projector
        yield Part("projector", "projector", projector, *["image_projector"] * 2)

    def _run_vision(self, parts: Parts) -> list[Rows]:
        """Return each sample's images as embeddings ``(image_tokens, H)``."""
        spec = self._config.image
        if spec is None:
            return [[] for _ in self._data.samples]
        parts.load(_packed(self._model.tower.pre_norm, "tower.pre_norm", self.read))
        rows = [image.pixels(spec) for sample in self._data.samples for image in sample.images]
        if rows:
            for part in self._vision_parts():
                rows = self._run_part(parts, part, rows)
        embeddings = iter(rows)
        return [[next(embeddings) for _ in sample.images] for sample in self._data.samples]

    def _embed(self, parts: Parts, images: Sequence[Rows]) -> Rows:
        """Return the decoder's input for each sample, ``(1, n, H)``."""
        layer = self.observed.decoder.embed_tokens
        parts.load(_packed(layer, "decoder.embed_tokens", self.read))
        return [
            _spliced(sample, embeddings, lambda ids: parts.run("embed", ids)[0])
            for sample, embeddings in zip(self._data.samples, images, strict=True)
        ]

    def _run_part(self, parts: Parts, part: Part, rows: Rows) -> Rows:
        """Round a part's matrices, and return what it makes of its inputs with them."""
        rounded = {}
        if any(name in self._schemes for name, _, _ in part.layers()):
            found = self._output.read(part.name)
            if found is None:
                found = self._round(parts, part, rows)
                self._output.write(part.name, found)
            else:
                self._step(len(rows) + len(found.reports))
            self._reports[part.name] = found.reports
            rounded = {
                name: dequantize(matrix, self._schemes[name].weights)
                for name, matrix in found.matrices.items()
            }
        self.load(parts, part, rounded)
        outputs = []
        for each in rows:
            outputs.append(parts.run(part.function, each)[0])
            self._step()
        return outputs

    def _round(self, parts: Parts, part: Part, rows: Rows) -> RoundedPart:
        """Round a part's matrices by what they read."""
        self.load(parts, part, {})
        layers = {own: (name, layer) for name, own, layer in part.layers()}
        moments = {
            own: SecondMoments(name, layer.width)
            for own, (name, layer) in layers.items()
            if name in self._schemes
        }
        for each in rows:
            _, inputs = self.observe(parts, part, each)
            for own, summed in moments.items():
                summed.add(inputs[own])
            self._step()
        matrices, reports = {}, []
        for own, summed in moments.items():
            name, layer = layers[own]
            matrices[name], report = self._round_layer(name, layer, summed)
            reports.append(report)
        return RoundedPart(matrices, tuple(reports))

    def observe(
        self, parts: Parts, part: Part, value: Float32Array
    ) -> tuple[Float32Array, dict[str, Float32Array]]:
        """Run a part, and return its output and the inputs of its linear layers, by own names."""
        output, *inputs = parts.run(part.function, value)
        return output, dict(zip(self.observed.linear_layers[part.function], inputs, strict=True))

    def _round_layer(
        self, name: str, layer: Linear, moments: SecondMoments
    ) -> tuple[QuantizedMatrix, LayerReport]:
        weight_format = self._schemes[name].weights
        matrix = layer.matrix(self.read).astype(np.float32)
        rounded = round_matrix(matrix, moments.mean(), weight_format)
        self._step()
        return rounded.matrix, LayerReport(
            name, weight_format.name, rounded.error, rounded.plain_error, rounded.fell_back
        )

    def _round_head(self, parts: Parts, rows: Rows) -> None:
        """Round the output head, which no part runs: nothing comes after it."""
        name, head = "decoder.lm_head", self.decoder.lm_head
        if name not in self._schemes:
            return
        found = self._output.read("head")
        if found is None:
            self.load_norm(parts)
            moments = SecondMoments(name, head.width)
            for each in rows:
                moments.add(parts.run("head", each)[0])
                self._step()
            matrix, report = self._round_layer(name, head, moments)
            found = RoundedPart({name: matrix}, (report,))
            self._output.write("head", found)
        else:
            self._step(len(rows) + 1)
        self._reports["head"] = found.reports

    def load_norm(self, parts: Parts) -> None:
        """Load what comes before the output head."""
        parts.load(_packed(self.decoder.norm, "decoder.norm", self.read))

    def load(self, parts: Parts, part: Part, rounded: Mapping[str, Float32Array]) -> None:
        """Load a part's weights, with rounded matrices in the place of the checkpoint's."""
        for name, layer in packed_layers(part.module, part.place):
            own = part.first + name.removeprefix(part.place)
            if isinstance(layer, Linear) and name in rounded:
                values = layer.pack(self.read, rounded[name])
            else:
                values = layer.pack(self.read)
            parts.load((f"{own}.{key}", value) for key, value in values)

    def _step(self, count: int = 1) -> None:
        self._done += count
        self._progress(_STEP, self._done, self._total)


def _schemes_to_round(model: MobileVLM) -> dict[str, Scheme]:
    """Return the schemes of the linear layers that calibration can help, by their names."""
    return {
        name: layer.linear_format.scheme
        for name, layer in packed_layers(model)
        if isinstance(layer, Linear) and is_calibrated(layer.linear_format.scheme)
    }


def _packed(module: nn.Module, place: str, read: ReadTensor) -> Iterator[tuple[str, Array]]:
    """Yield the weights of all layers of a module by their names."""
    for name, layer in packed_layers(module, place):
        yield from ((f"{name}.{key}", value) for key, value in layer.pack(read))


def _spliced(
    sample: Sample, images: Rows, embed: Callable[[npt.NDArray[np.int32]], Float32Array]
) -> Float32Array:
    """Return a sample's embeddings, those of images in their places."""
    pieces, ids = [], np.array(sample.ids, np.int32)
    places = np.flatnonzero(ids == IMAGE_TOKEN_ID)
    for text, image in zip_longest(np.split(ids, places), images):
        text = text[text != IMAGE_TOKEN_ID]
        if text.size:
            pieces.append(embed(text[None]))
        if image is not None:
            pieces.append(image)
    return np.concatenate(pieces, axis=1)
