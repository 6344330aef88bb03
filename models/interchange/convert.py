"""Converts a checkpoint's folder into another tool's format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mvlm.models.checkpoint import Checkpoint, expected_tensors, open_checkpoint
from mvlm.models.checkpoint.names import language_tensors
from mvlm.models.config import MobileVLMConfig
from mvlm.models.config.read import read_config
from mvlm.runtime.errors import CheckpointError, UsageError
from mvlm.runtime.input_file import as_utf8, is_present

# The formats, and what weights are stored as unless the user says otherwise.
FORMATS = {"mlc": "q4f16_1", "gguf": "f16", "onnx": "f32"}
_TOKENIZER = "tokenizer.model"


@dataclass(frozen=True)
class Conversion:
    """What to convert to.

    Attributes:
        format: One of :data:`FORMATS`.
        kind: How weights are stored; the format's own choice if None.
        allow_nonfinite: Whether NaN and infinite weights are replaced instead of refused.
        text_only: Whether only the decoder is written; for gguf.

    Raises:
        UsageError: The format is unknown.
    """

    format: str
    kind: str | None = None
    allow_nonfinite: bool = False
    text_only: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(
                "unknown format", expected=" or ".join(FORMATS), found=repr(self.format)
            )

    @property
    def storage(self) -> str:
        """How weights are stored."""
        return FORMATS[self.format] if self.kind is None else self.kind


def convert(
    source: Path,
    folder: Path,
    conversion: Conversion,
    *,
    vision_tower: Path | None = None,
    adapter: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda text: None,
) -> None:
    """Write a checkpoint in another format.

    Args:
        source: The checkpoint's folder.
        folder: An empty folder.
        conversion: What to write.
        vision_tower: The folder of a V1's CLIP, where it would not be found.
        adapter: The folder of a LoRA adapter to merge.
        progress: Called with the bytes of the checkpoint that are done, and of all.
        warn: Called with what the user should know.

    Raises:
        UsageError: The storage is unknown, or a package is not installed.
        CheckpointError: The checkpoint is not whole, a weight is not finite or does not fit, or
            the adapter does not fit the model, or changes what the format does not hold.
        ConfigError: The other tool cannot express this model.
    """
    config = read_config(source, vision_tower)
    for text in config.warnings:
        warn(text)
    checkpoint = open_checkpoint(
        source, vision_tower, adapter, allow_nonfinite=conversion.allow_nonfinite
    )
    expected = expected_tensors(config)
    used = set(expected)
    if conversion.format == "onnx":
        used -= dict(language_tensors(config.language)).keys()
    checkpoint.check(expected, used).raise_if_bad()
    total, done = sum(map(checkpoint.nbytes, expected)), 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(done, total)

    job = _Job(config, checkpoint, source, folder, conversion, advance)
    {"mlc": _to_mlc, "gguf": _to_gguf, "onnx": _to_onnx}[conversion.format](job)
    checkpoint.check_adapter_used()


@dataclass(frozen=True)
class _Job:
    """A conversion with all that it needs."""

    config: MobileVLMConfig
    checkpoint: Checkpoint
    source: Path
    folder: Path
    conversion: Conversion
    progress: Callable[[int], None]


def _to_mlc(job: _Job) -> None:
    from mvlm.models.interchange.mlc import write_mlc

    write_mlc(
        job.config,
        job.checkpoint,
        job.source,
        job.folder,
        quantization=job.conversion.storage,
        progress=job.progress,
    )


def _to_gguf(job: _Job) -> None:
    from mvlm.models.interchange.gguf_file import write_language, write_vision

    tokenizer = job.source / _TOKENIZER
    if not is_present(tokenizer, CheckpointError):
        raise CheckpointError(f"{job.source} has no {_TOKENIZER}", fix="Download it.")
    name, kind = as_utf8(job.source.resolve().name), job.conversion.storage
    write_language(
        job.config,
        job.checkpoint,
        tokenizer,
        job.folder / f"model-{kind}.gguf",
        name=name,
        kind=kind,
        progress=job.progress,
    )
    if job.config.vision is not None and not job.conversion.text_only:
        write_vision(
            job.config,
            job.checkpoint,
            job.folder / f"mmproj-{'f32' if kind == 'f32' else 'f16'}.gguf",
            name=name,
            kind=kind,
            progress=job.progress,
        )


def _to_onnx(job: _Job) -> None:
    from mvlm.models.interchange.onnx_vision import write_onnx

    if job.config.vision is None:
        raise UsageError(
            f"{job.source} has no vision tower", expected="a MobileVLM: ONNX is for its tower"
        )
    path = job.folder / "vision.onnx"
    write_onnx(job.config, job.checkpoint, path, kind=job.conversion.storage, progress=job.progress)
