"""One command line for every verb that does some of its real work within a second or two."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mvlm.cli.app import VERBS

PROGRAM = Path(sys.executable).parent / "mvlm"
# They serve until they are ended.
SERVERS = ("serve", "device serve", "device tracker")


@dataclass(frozen=True)
class Workspace:
    """What the command lines work on.

    Attributes:
        checkpoint: A small checkpoint, which is compiled in the cache.
        artifact: The same, compiled.
        output: An empty folder.
    """

    checkpoint: Path
    artifact: Path
    output: Path

    @property
    def matrix(self) -> Path:
        """A matrix of one job."""
        path = self.output / "matrix.toml"
        # A path that is not UTF-8 cannot stand in TOML.
        link = self.output / "matrix-model"
        link.unlink(missing_ok=True)
        link.symlink_to(self.checkpoint)
        text = 'models = ["matrix-model"]\nquantizations = ["q0f32"]\n'
        path.write_text(text, encoding="utf-8")
        return path

    @property
    def store(self) -> str:
        """The store of that job."""
        return f"file://{self.output}/store"

    @property
    def empty_store(self) -> str:
        """A store without any run."""
        return f"file://{self.output}/empty-store"


Arguments = Sequence[str | Path]

# A verb's arguments, and the exit code that they end with.
COMMANDS: Mapping[str, tuple[Callable[[Workspace], Arguments], int]] = {
    "demo": (lambda workspace: ["--prompt", "Hello"], 0),
    "compile": (
        lambda workspace: [workspace.checkpoint, "--quant", "q0f32", "-o", workspace.output / "a"],
        0,
    ),
    "chat": (lambda workspace: [workspace.checkpoint, "--quant", "q0f32", "--prompt", "Hello"], 0),
    "serve": (lambda workspace: [workspace.artifact, "--port", "0"], 143),
    "targets": (lambda workspace: ["--detect"], 0),
    "tune": (
        lambda workspace: [
            *(
                workspace.checkpoint,
                "--quant",
                "q0f32",
                "--trials",
                "1",
                "--only",
                "linear_128x128",
            ),
            *("--logs", workspace.output / "logs"),
        ],
        0,
    ),
    "logs list": (lambda workspace: [], 0),
    "logs show": (lambda workspace: [workspace.output / "none"], 1),
    "logs merge": (
        lambda workspace: [workspace.output / "none", "-o", workspace.output / "merged"],
        1,
    ),
    "logs prune": (lambda workspace: [workspace.output / "none"], 1),
    "device serve": (lambda workspace: [workspace.artifact], 143),
    "device tracker": (lambda workspace: ["--port", "19190"], 143),
    "device list": (lambda workspace: ["--tracker", "127.0.0.1:1"], 1),
    "inspect": (lambda workspace: [workspace.artifact], 0),
    "verify": (lambda workspace: [workspace.artifact], 0),
    "bench": (lambda workspace: [workspace.artifact, "--runs", "1", "--tokens", "2"], 0),
    "jobs run": (lambda workspace: [workspace.matrix, "--store", workspace.store], 0),
    "jobs status": (lambda workspace: ["--store", workspace.empty_store], 2),
    "jobs logs": (lambda workspace: ["--store", workspace.empty_store], 2),
    "jobs cancel": (lambda workspace: ["--store", workspace.empty_store], 2),
    "jobs fetch": (
        lambda workspace: ["--store", workspace.empty_store, "-o", workspace.output / "fetched"],
        2,
    ),
    # Too few positions: a calibration takes longer than all other verbs together.
    "calibrate": (lambda workspace: [workspace.checkpoint, "--calibration-tokens", "1"], 2),
    "plan": (lambda workspace: [workspace.checkpoint, "--bits", "4", "--data", "no-text.md"], 2),
    "package": (lambda workspace: [workspace.artifact, "--for", "linux-aarch64"], 2),
    "device-check": (
        lambda workspace: [
            workspace.artifact,
            "--runs",
            "1",
            "-o",
            workspace.output / "report.json",
        ],
        0,
    ),
    "convert": (
        lambda workspace: [workspace.checkpoint, "--to", "mlc", "-o", workspace.output / "mlc"],
        0,
    ),
    "synth": (
        lambda workspace: [
            "MobileLLaMA-9B",
            "-o",
            workspace.output / "synth",
        ],  # lists the right names
        2,
    ),
}


def all_verbs() -> list[str]:
    """Every verb; those of a group behind its name."""
    verbs = []
    for name in VERBS:
        module = import_module(f"mvlm.cli.{name.replace('-', '_')}")
        inner = getattr(module, "VERBS", None)
        verbs += [name] if inner is None else [f"{name} {each}" for each in inner]
    return verbs


def run_verb(
    verb: str,
    workspace: Workspace,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    streams: str = "",
    timeout: float = 300,
) -> subprocess.CompletedProcess[bytes]:
    """Run a verb as a person does, by the installed program.

    Args:
        verb: One of :data:`COMMANDS`.
        workspace: What it works on.
        folder: The current folder.
        environment: All variables; this process's if None.
        streams: The shell's redirections, ``<&-`` for instance.
        timeout: Seconds; a server is ended by SIGTERM after some.
    """
    arguments, _ = COMMANDS[verb]
    line = [os.fspath(PROGRAM), *verb.split(), *map(os.fspath, arguments(workspace))]
    command = ["sh", "-c", f'exec "$@" {streams}', "sh", *line]
    if verb in SERVERS:
        command = ["timeout", "--signal=TERM", "--preserve-status", "4", *command]
    return subprocess.run(
        command,
        cwd=folder,
        env=None if environment is None else dict(environment),
        capture_output=True,
        timeout=timeout,
        check=False,
    )
