"""Servers in processes of their own, and their memory."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mvlm.runtime.errors import MvlmError
from mvlm.runtime.start_module import module_command

_START_SECONDS = 120.0
NAME = "model"
OURS = "mvlm serve"


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        name: What the table calls it.
        url: Its completions.
        process: Its process.
    """

    name: str
    url: str
    process: subprocess.Popen[bytes]

    def rss_bytes(self) -> int:
        """Return its resident memory, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024


@contextmanager
def our_server(artifact: Path, threads: int, capacity: int) -> Iterator[Server]:
    """Run ``mvlm serve``."""
    command = module_command("mvlm.cli")
    options = ["serve", f"{NAME}={artifact}", "--threads", threads, "--capacity", capacity]
    with _running(OURS, [*command, *options]) as server:
        yield server


@contextmanager
def llama_server(
    binary: Path, model: Path, threads: int, capacity: int, slots: int
) -> Iterator[Server]:
    """Run llama.cpp's server with so many slots; everything else is its default."""
    options = ["--model", model, "-t", threads, "-c", capacity, "-np", slots, "--no-webui"]
    with _running("llama-server", [binary, *options]) as server:
        yield server


@contextmanager
def _running(name: str, command: Sequence[object]) -> Iterator[Server]:
    port = _free_port()
    words = [*map(str, command), "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait(process, port, name)
            yield Server(name, f"http://127.0.0.1:{port}/v1/completions", process)
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], port: int, name: str) -> None:
    """Wait until a server answers.

    Raises:
        MvlmError: It does not start.
    """
    import httpx

    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise MvlmError(f"{name} does not start", found=f"status {process.returncode}")
