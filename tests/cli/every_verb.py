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
SERVERS = ("device serve", "device tracker")


@dataclass(frozen=True)
class Place:
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
COMMANDS: Mapping[str, tuple[Callable[[Place], Arguments], int]] = {
    "demo": (lambda place: ["--prompt", "Hello"], 0),
    "compile": (lambda place: [place.checkpoint, "--quant", "q0f32", "-o", place.output / "a"], 0),
    "chat": (lambda place: [place.checkpoint, "--quant", "q0f32", "--prompt", "Hello"], 0),
    "targets": (lambda place: ["--detect"], 0),
    "tune": (
        lambda place: [
            *(place.checkpoint, "--quant", "q0f32", "--trials", "1", "--only", "linear_128x128"),
            *("--logs", place.output / "logs"),
        ],
        0,
    ),
    "logs list": (lambda place: [], 0),
    "logs show": (lambda place: [place.output / "none"], 1),
    "logs merge": (lambda place: [place.output / "none", "-o", place.output / "merged"], 1),
    "logs prune": (lambda place: [place.output / "none"], 1),
    "device serve": (lambda place: [place.artifact], 143),
    "device tracker": (lambda place: ["--port", "19190"], 143),
    "device list": (lambda place: ["--tracker", "127.0.0.1:1"], 1),
    "inspect": (lambda place: [place.artifact], 0),
    "verify": (lambda place: [place.artifact], 0),
    "bench": (lambda place: [place.artifact, "--runs", "1", "--tokens", "2"], 0),
    "jobs run": (lambda place: [place.matrix, "--store", place.store], 0),
    "jobs status": (lambda place: ["--store", place.empty_store], 2),
    "jobs logs": (lambda place: ["--store", place.empty_store], 2),
    "jobs cancel": (lambda place: ["--store", place.empty_store], 2),
    "jobs fetch": (lambda place: ["--store", place.empty_store, "-o", place.output / "fetched"], 2),
    "package": (lambda place: [place.artifact, "--for", "linux-aarch64"], 2),
    "device-check": (
        lambda place: [place.artifact, "--runs", "1", "-o", place.output / "report.json"],
        0,
    ),
    "convert": (lambda place: [place.checkpoint, "--to", "mlc", "-o", place.output / "mlc"], 0),
    "synth": (
        lambda place: ["MobileLLaMA-9B", "-o", place.output / "synth"],  # lists the right names
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
    place: Place,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    streams: str = "",
    timeout: float = 120,
) -> subprocess.CompletedProcess[bytes]:
    """Run a verb as a person does, by the installed program.

    Args:
        verb: One of :data:`COMMANDS`.
        place: What it works on.
        folder: The current folder.
        environment: All variables; this process's if None.
        streams: The shell's redirections, ``<&-`` for instance.
        timeout: Seconds; a server is ended by SIGTERM after some.
    """
    arguments, _ = COMMANDS[verb]
    line = [os.fspath(PROGRAM), *verb.split(), *map(os.fspath, arguments(place))]
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
