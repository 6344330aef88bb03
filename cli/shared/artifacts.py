"""The way from what a user names to an artifact: given, in the cache, or to be compiled."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from mvlm.cli.shared.progress import progress_bars
from mvlm.cli.shared.terminal import warn
from mvlm.runtime.errors import UsageError
from mvlm.runtime.input_file import is_present
from mvlm.runtime.progress import Progress, no_progress

if TYPE_CHECKING:
    from mvlm.compile.job import CompileJob

# A checkpoint's marks, as the manifest is an artifact's.
# The second is mlc-llm's; `models.config.mlc` names it too, but takes long to import.
_CONFIGS = ("config.json", "mlc-chat-config.json")


def find_artifact(
    path: Path,
    *,
    quantization: str | None = None,
    vision_quantization: str | None = None,
    vision_tower: Path | None = None,
) -> Path:
    """Return the artifact that a user means, compiling it if need be.

    Args:
        path: The folder of an artifact or of a checkpoint.
        quantization: Of a checkpoint: the decoder's scheme; the default one if None.
        vision_quantization: Of a checkpoint: the tower's and projector's; the default one if None.
        vision_tower: Of a checkpoint: the folder of its CLIP.

    Raises:
        UsageError: The path is neither, or an option does not go with it.
        MvlmError: The checkpoint is not usable, or compiling it failed.
    """
    from mvlm.runtime.artifact.layout import MANIFEST  # which imports numpy

    if (path / MANIFEST).is_file():
        for option, value in (
            ("--quant", quantization),
            ("--vision-quant", vision_quantization),
            ("--vision-tower", vision_tower),
        ):
            if value is not None:
                raise UsageError(
                    f"{option} is for a checkpoint that is to be compiled",
                    found=f"the artifact {path}, which is compiled",
                    fix="Leave it out, or name the checkpoint's folder.",
                )
        return path
    if not any(is_present(path / name, UsageError) for name in _CONFIGS):
        raise UsageError(
            f"{path} is neither an artifact nor a checkpoint",
            expected=f"a folder with {MANIFEST} or {_CONFIGS[0]}",
            found="neither of them in it" if path.is_dir() else "no such folder",
        )
    return _find_or_compile(path, quantization, vision_quantization, vision_tower)


def _find_or_compile(
    checkpoint: Path,
    quantization: str | None,
    vision_quantization: str | None,
    vision_tower: Path | None,
) -> Path:
    """Show what compiling is done, if any."""
    from mvlm.compile.cache import find_or_compile
    from mvlm.compile.compiler_process import CompileRequest

    request = CompileRequest(checkpoint, quantization, vision_quantization, vision_tower)
    draw: Progress = no_progress
    warnings = list[str]()

    def begin(job: CompileJob, artifact: Path) -> None:
        nonlocal draw
        scheme = job.quantization.name
        named = scheme if vision_quantization is None else f"{scheme}, tower {vision_quantization}"
        warn(f"compiling {job.name} ({named}) for this machine, once; it is kept in {artifact}")
        draw = bars.enter_context(progress_bars(in_bytes=("weights",)))

    with ExitStack() as bars:
        artifact = find_or_compile(
            request,
            begin=begin,
            progress=lambda step, done, total: draw(step, done, total),
            warn=warnings.append,
        )
    for warning in warnings:
        warn(f"warning: {warning}")
    return artifact
