"""What is to be compiled: a checkpoint, a target and the schemes. Imports no tvm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvlm.compile.calibration_data.model_input import ModelInput
from mvlm.compile.calibration_data.request import CalibrationRequest
from mvlm.compile.calibration_data.samples import CalibrationData
from mvlm.compile.provenance import files_digest, package_versions, source_digest
from mvlm.compile.toolchain import linker_identity
from mvlm.compile.tuning_log import log_folders, logs_digest
from mvlm.models.checkpoint import Checkpoint, expected_tensors, open_checkpoint
from mvlm.models.config import MobileVLMConfig
from mvlm.models.config.read import read_config
from mvlm.models.interchange.onnx_graph import onnx_files
from mvlm.models.quantization import DEFAULT_SCHEME, Quantization, plan_quantization
from mvlm.models.weight_layout import WeightLayout
from mvlm.runtime.artifact.layout import MAX_CONTEXT
from mvlm.runtime.errors import CheckpointError, TokenizerError, UsageError
from mvlm.runtime.input_file import as_utf8, is_present
from mvlm.runtime.machine import read_machine
from mvlm.runtime.targets import TargetDescription, choose_platform, find_description
from mvlm.runtime.tokenizer import Tokenizer
from mvlm.schedules.registry import find_layout

if TYPE_CHECKING:
    from mvlm.models.mobilevlm import MobileVLM

TOKENIZER_FILE = "tokenizer.model"
PREFILL_CHUNK = 512
# Rows of an embedding table that no piece belongs to: tables are filled up to round numbers.
_SPARE_ROWS = 256
# Fields that say where something is, which does not matter to what is made of it.
_PLACES = ("vision_tower", "adapter", "vision_onnx", "logs", "calibration")
# What decides how calibration rounds. The rest of our source computes the same in other ways.
_CALIBRATING = ("mvlm.compile.calibration", "mvlm.compile.calibration_data", "mvlm.models")


@dataclass(frozen=True)
class CompileJob:
    """One checkpoint for one target; :func:`plan_job` makes it.

    Attributes:
        checkpoint: The checkpoint's folder.
        vision_tower: The folder of a V1's CLIP, where it would not be found.
        adapter: The folder of a LoRA adapter that is merged into the weights.
        vision_onnx: A file whose graph takes the place of tower, projector or both.
        config: What the checkpoint says of itself.
        target: The device.
        platform: The system that it runs.
        quantization: How the parts' matrices are stored.
        context: Positions of the KV cache at the most.
        prefill_chunk: Positions that one call of prefill takes at the most.
        allow_nonfinite: Whether NaN and infinite weights are replaced instead of refused.
        logs: Folders of tuning logs that are looked into.
        calibration: The data that matrices are rounded by; None without calibration.
    """

    checkpoint: Path
    vision_tower: Path | None
    adapter: Path | None
    vision_onnx: Path | None
    config: MobileVLMConfig
    target: TargetDescription
    platform: str
    quantization: Quantization
    context: int
    prefill_chunk: int
    allow_nonfinite: bool
    logs: tuple[Path, ...]
    calibration: CalibrationRequest | None = None

    @property
    def name(self) -> str:
        """The model's name: its folder's, and the adapter's."""
        name = as_utf8(self.checkpoint.resolve().name)
        return name if self.adapter is None else f"{name}+{as_utf8(self.adapter.resolve().name)}"

    @property
    def layout(self) -> WeightLayout:
        """How weights are arranged for the target's kernels.

        Raises:
            TargetError: There are no kernels for the target.
        """
        return find_layout(self.target.kernels)

    @property
    def tokenizer(self) -> Path:
        """The SentencePiece model.

        Raises:
            CheckpointError: The checkpoint has none, or a link that leads nowhere.
        """
        path = self.checkpoint / TOKENIZER_FILE
        if not is_present(path, CheckpointError):
            raise CheckpointError(
                f"{self.checkpoint} has no tokenizer",
                expected=f"a SentencePiece model named {TOKENIZER_FILE}",
                found="none",
                fix="Download it from the checkpoint's page.",
            )
        return path

    def open_checkpoint(self) -> Checkpoint:
        """Open the weights, with all that is merged into them; reads none of them.

        Raises:
            CheckpointError: There are none, or they are damaged.
        """
        return open_checkpoint(
            self.checkpoint,
            self.vision_tower,
            self.adapter,
            allow_nonfinite=self.allow_nonfinite,
        )

    def build_model(self) -> MobileVLM:
        """Return the model that the checkpoint describes; reads no weights and imports tvm."""
        from mvlm.models.mobilevlm import MobileVLM
        from mvlm.models.onnx_vision import import_vision

        onnx = (
            None
            if self.vision_onnx is None
            else import_vision(
                self.vision_onnx,
                self.config,
                self.layout,
                allow_nonfinite=self.allow_nonfinite,
            )
        )
        return MobileVLM(self.config, self.quantization, self.layout, onnx)

    def check_tokenizer(self) -> None:
        """Check that the tokenizer can be read and belongs to the model.

        Raises:
            CheckpointError: There is none.
            TokenizerError: It is damaged, or has not about as many pieces as the model has rows.
        """
        pieces = Tokenizer(self.tokenizer, legacy=self.config.tokenizer.legacy).vocab_size
        rows = self.config.language.vocab_size
        if not rows - _SPARE_ROWS <= pieces <= rows:
            raise TokenizerError(
                f"{self.tokenizer} does not belong to the model",
                expected=f"{rows} pieces, one for each row of the embedding table, "
                f"or up to {_SPARE_ROWS} fewer",
                found=pieces,
                fix="Take the tokenizer from the place where the weights come from.",
            )

    def check_adapter(self) -> None:
        """Ask that the adapter, if there is one, is understood and is for this model.

        Raises:
            UsageError: It is not an adapter's folder.
            ConfigError: Its configuration asks for what is not supported.
            CheckpointError: Its tensors are not the model's, or would have no effect.
        """
        if self.adapter is not None:
            self.open_checkpoint().check_adapter(expected_tensors(self.config))

    @cached_property
    def calibration_data(self) -> CalibrationData | None:
        """What the job is calibrated with, drawn once; None without calibration.

        Raises:
            CheckpointError: The checkpoint has no tokenizer.
            UsageError: Data are absent, not in their format, or too few.
        """
        if self.calibration is None:
            return None
        tokenizer = Tokenizer(self.tokenizer, legacy=self.config.tokenizer.legacy)
        return self.calibration.read(ModelInput.of(self.config, tokenizer))

    @cached_property
    def planning_data(self) -> CalibrationData:
        """What a plan of bits is measured with: the calibration's data, or the default data.

        Raises:
            CheckpointError: The checkpoint has no tokenizer.
            UsageError: Data are absent, not in their format, or too few.
        """
        if self.calibration_data is not None:
            return self.calibration_data
        return replace(self, calibration=CalibrationRequest()).planning_data

    def checkpoint_digest(self) -> str:
        """The sha256 of the weights, of all that is merged, and of the tokenizer."""
        weights = self.open_checkpoint().files()
        graph = [] if self.vision_onnx is None else onnx_files(self.vision_onnx)
        return files_digest([self.tokenizer, *weights, *graph])

    def key(self, checkpoint: str | None = None, data: str | None = None) -> str:
        """The sha256 of everything that goes into the artifact.

        Equal keys mean equal artifacts: the weights, the configuration, the schemes, the device,
        our own source, the versions of what generates the code and the linker are in it.

        Args:
            checkpoint: The checkpoint's digest, where it is known; it is read if None.
            data: The calibration data's digest, where it is known; they are drawn if None.
        """
        machine = read_machine()
        features = sorted(self.target.cpu.code_features(machine))
        is_baseline = self.target.cpu.baseline
        native = [machine.architecture, *([] if is_baseline else [machine.cpu]), *features]
        parts = {
            "calibration": data or self._data_digest(),
            "checkpoint": checkpoint or self.checkpoint_digest(),
            "planning": self._planning_digest(data),
            "job": asdict(self) | {"checkpoint": self.name, **dict.fromkeys(_PLACES)},
            "linker": linker_identity(self.target, self.platform, machine),
            "logs": logs_digest(self.target.name, self.logs),
            "machine": native if self.target.cpu.is_native else [],
            "source": source_digest(),
            "versions": package_versions(),
        }
        return _digest(parts)

    def weights_key(self, checkpoint: str | None = None, data: str | None = None) -> str:
        """The sha256 of everything that goes into the weight files alone.

        Of the device only the layout of weights is in it, so that targets that share a layout
        share the files. Nor is the KV cache in it, which holds no weights.

        Args:
            checkpoint: The checkpoint's digest, where it is known; it is read if None.
            data: The calibration data's digest, where it is known; they are drawn if None.

        Raises:
            TargetError: There are no kernels for the target.
        """
        return _digest(
            self._rounded_parts(checkpoint, data)
            | {"layout": self.layout.name, "source": source_digest()}
        )

    def _data_digest(self) -> str | None:
        data = self.calibration_data
        return None if data is None else data.digest

    def _planning_digest(self, data: str | None) -> str | None:
        """Return the digest of what a plan of bits is measured with; None where none is made."""
        if self.quantization.bits is None:
            return None
        return data or self.planning_data.digest

    def calibration_key(self, checkpoint: str | None = None) -> str:
        """The sha256 of everything that goes into the calibrated matrices: nothing of the device.

        Args:
            checkpoint: The checkpoint's digest, where it is known; it is read if None.

        Raises:
            UsageError: Data are absent, not in their format, or too few.
        """
        assert self.calibration is not None, "the job is not calibrated"
        return _digest(
            self._rounded_parts(checkpoint, None) | {"source": source_digest(_CALIBRATING)}
        )

    def sensitivity_key(self, checkpoint: str | None = None) -> str:
        """The sha256 of everything that decides what rounding costs each of the model's layers.

        Nothing of the device is in it, nor of the quantization.

        Args:
            checkpoint: The checkpoint's digest, where it is known; it is read if None.

        Raises:
            UsageError: Data are absent, not in their format, or too few.
        """
        return _digest(
            {
                "checkpoint": checkpoint or self.checkpoint_digest(),
                "config": asdict(self.config),
                "data": self.planning_data.digest,
                "allow_nonfinite": self.allow_nonfinite,
                "source": source_digest(("mvlm.compile.bits", *_CALIBRATING)),
                "versions": package_versions(),
            }
        )

    def _rounded_parts(self, checkpoint: str | None, data: str | None) -> dict[str, Any]:
        """Return what decides how weights are rounded, but for our source; none of the device."""
        return {
            "calibration": data or self._data_digest(),
            "checkpoint": checkpoint or self.checkpoint_digest(),
            "planning": self._planning_digest(data),
            "config": asdict(self.config),
            "schemes": asdict(self.quantization) | {"cache": None},
            "onnx": self.vision_onnx is not None,
            "allow_nonfinite": self.allow_nonfinite,
            "versions": package_versions(),
        }


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def plan_job(  # noqa: PLR0913  # each is an option of a job, given by name
    checkpoint: Path,
    *,
    target: str | TargetDescription = "host",
    platform: str | None = None,
    quantization: str | Quantization = DEFAULT_SCHEME,
    vision_tower: Path | None = None,
    adapter: Path | None = None,
    vision_onnx: Path | None = None,
    context: int | None = None,
    prefill_chunk: int = PREFILL_CHUNK,
    allow_nonfinite: bool = False,
    logs: Sequence[Path] | None = None,
    calibration: CalibrationRequest | None = None,
) -> CompileJob:
    """Read a checkpoint's configuration and settle what was left open.

    Args:
        checkpoint: The checkpoint's folder.
        target: The device: its description, or its name or file.
        platform: The system that it runs; the usual one if None.
        quantization: How the parts' matrices are stored, or the name of the decoder's scheme.
        vision_tower: The folder of a V1's CLIP, where it would not be found.
        adapter: The folder of a LoRA adapter to merge.
        vision_onnx: A file whose graph takes the place of tower, projector or both.
        context: Positions of the KV cache; what the model was trained for if None.
        prefill_chunk: Positions that one call of prefill takes at the most.
        allow_nonfinite: Replace NaN and infinite weights instead of refusing them.
        logs: Folders of tuning logs; the user's and ours if None, none at all if empty.
        calibration: The data to round matrices by; none if None.

    Raises:
        UsageError: A name or a number is out of range, or two options exclude each other.
        ConfigError: The checkpoint's configuration is not usable.
        TargetError: The target's file does not describe a device.
    """
    device = find_description(target) if isinstance(target, str) else target
    schemes = plan_quantization(quantization) if isinstance(quantization, str) else quantization
    config = read_config(checkpoint, vision_tower)
    longest = min(config.language.max_position_embeddings, MAX_CONTEXT)
    positions = longest if context is None else context
    for option, value, least, most in (
        # One position to read and one to answer.
        ("--context", positions, 2, longest),
        ("--prefill-chunk", prefill_chunk, 1, 1 << 16),
    ):
        if not least <= value <= most:
            raise UsageError(option, expected=f"{least} to {most}", found=value)
    _check_schemes(schemes, config, calibration, vision_onnx)
    return CompileJob(
        checkpoint=checkpoint,
        vision_tower=vision_tower,
        adapter=adapter,
        vision_onnx=vision_onnx,
        config=config,
        target=device,
        platform=choose_platform(device, platform, read_machine()).name,
        quantization=schemes,
        context=positions,
        prefill_chunk=min(prefill_chunk, positions),
        allow_nonfinite=allow_nonfinite,
        logs=log_folders(logs),
        calibration=calibration,
    )


def _check_schemes(
    schemes: Quantization,
    config: MobileVLMConfig,
    calibration: CalibrationRequest | None,
    vision_onnx: Path | None,
) -> None:
    """Check that what decides the weights goes together."""
    reading = {"--calibrate": calibration, "--bits": schemes.bits}
    for option, value in reading.items():
        if value is not None and vision_onnx is not None:
            raise UsageError(
                "a graph from ONNX cannot be calibrated, and no plan of bits be measured with it",
                expected=f"{option} or --vision-onnx",
                found="both",
                fix="Leave one of them out.",
            )
    layers = config.language.num_hidden_layers
    if schemes.plan is not None and len(schemes.plan.layers) != layers:
        raise UsageError(
            "the plan of bits is not for this model",
            expected=f"schemes for its {layers} layers",
            found=f"{len(schemes.plan.layers)} layers",
        )
