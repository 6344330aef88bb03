"""The way from what a user names to an artifact: there already, in the cache, or to be compiled.

The compiler takes hundreds of megabytes and seconds to import, so it runs in a child process: the
process that chats stays as small as it is on a device, and so does the peak memory that it reports.
"""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from mvlm.cli.shared.failure import AlreadyReportedError, interrupted_exit_code
from mvlm.cli.shared.interrupts import termination_signal
from mvlm.cli.shared.invocation import Invocation
from mvlm.cli.shared.terminal import warn
from mvlm.runtime.errors import UsageError
from mvlm.runtime.start_module import module_command

# A checkpoint's marks, as the manifest is an artifact's.
# The second is mlc-llm's; `models.config.mlc` names it too, but takes long to import.
_CONFIGS = ("config.json", "mlc-chat-config.json")
_PATIENCE_SECONDS = 60


def find_artifact(
    path: Path,
    invocation: Invocation,
    *,
    quantization: str | None = None,
    vision_quantization: str | None = None,
    vision_tower: Path | None = None,
) -> Path:
    """Return the artifact that a user means, compiling it if need be.

    Args:
        path: The folder of an artifact or of a checkpoint.
        invocation: The call that this is done for.
        quantization: Of a checkpoint: the decoder's scheme; the default one if None.
        vision_quantization: Of a checkpoint: the tower's and projector's; the default one if None.
        vision_tower: Of a checkpoint: the folder of its CLIP.

    Raises:
        UsageError: The path is neither, or an option does not go with it.
        MvlmError: The checkpoint is not usable.
        AlreadyReportedError: Compiling failed.
    """
    from mvlm.runtime.artifact.layout import MANIFEST
    from mvlm.runtime.input_file import is_present

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
    return _find_compiled(path, invocation, quantization, vision_quantization, vision_tower)


def _find_compiled(
    checkpoint: Path,
    invocation: Invocation,
    quantization: str | None,
    vision_quantization: str | None,
    vision_tower: Path | None,
) -> Path:
    from mvlm.compile.cache import cached_artifact, is_artifact, prepare_place
    from mvlm.compile.job import plan_job
    from mvlm.models.quantization import DEFAULT_SCHEME, plan_quantization

    scheme = DEFAULT_SCHEME if quantization is None else quantization
    schemes = plan_quantization(scheme, vision=vision_quantization)
    job = plan_job(checkpoint, quantization=schemes, vision_tower=vision_tower)
    artifact = cached_artifact(job)
    prepare_place(artifact)
    if not is_artifact(artifact):
        named = scheme if vision_quantization is None else f"{scheme}, tower {vision_quantization}"
        warn(f"compiling {job.name} ({named}) for this machine, once; it is kept in {artifact}")
        arguments = [str(checkpoint), "--quant", scheme, "-o", str(artifact)]
        arguments += ["--vision-quant", vision_quantization] if vision_quantization else []
        arguments += ["--vision-tower", str(vision_tower)] if vision_tower else []
        _compile_in_child([*arguments, *(["--debug"] if invocation.debug else [])])
    return artifact


def _compile_in_child(arguments: list[str]) -> None:
    """Run ``mvlm compile``; its progress and its errors go to our own standard error."""
    command = module_command("mvlm.cli", "compile", "--json", *arguments)
    # A session of its own, so that Ctrl-C reaches it through us, once, wherever it came from.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        try:
            printed, _ = child.communicate()
        except KeyboardInterrupt:
            _interrupt(child)
            raise AlreadyReportedError(interrupted_exit_code(), None) from None
    if child.returncode != 0:
        raise AlreadyReportedError(max(child.returncode, 1), _read_json(printed))


def _interrupt(child: subprocess.Popen[bytes]) -> None:
    """Let the child clean up and say that it was interrupted."""
    child.send_signal(termination_signal() or signal.SIGINT)
    try:
        child.wait(_PATIENCE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        child.kill()
        child.wait()


def _read_json(printed: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(printed)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
