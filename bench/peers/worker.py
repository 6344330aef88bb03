"""The child process that a tool runs in: ``python -m mvlm.bench.peers.worker``.

Requests and replies are JSON, one a line, on standard input and output:

============== ============================== ==========================================
`do`           with                           replies
============== ============================== ==========================================
`prepare`      `module` `checkpoint`          nothing: the tool's files are in the folder
               `vision_tower` `folder`
`open`         `module` `setup`               what the tool says of itself
`prefill`      `positions`                    `seconds`
`decode`       `tokens` `max_seconds`         `seconds`, `tokens`, which may be fewer
`decode_batch` `positions` `sequences`        `seconds` of decoding, without the prompts
               `tokens`
`encode_image`                                `seconds`
`features`                                    `shape`, `base64` of float32; or `shape` null
`first_token`  `words`                        `seconds`
`peak`                                        `bytes`
============== ============================== ==========================================

A reply is ``{"ok": {...}}`` or ``{"error": "..."}``. What a library prints goes to standard error.
The process ends with its standard input, and the kernel ends it with its parent.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mvlm.bench.peers.inputs import bundled_image, prompt, words
from mvlm.bench.peers.runner import BatchRunner, Runner, Setup
from mvlm.runtime.errors import MvlmError
from mvlm.runtime.machine import peak_rss_bytes

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however busy this one is then."""
    parent = os.getppid()
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew
        os._exit(1)


class Worker:
    """A tool, and the requests that it is given."""

    def __init__(self) -> None:
        self._setup: Setup | None = None
        self._runner: Runner | None = None
        self._prompt = self._used = 0  # positions of the last prompt of words, and of all since

    def serve(self, requests: TextIO, replies: TextIO) -> None:
        """Answer requests until there are no more."""
        for line in requests:
            reply: dict[str, Any]
            try:
                reply = {"ok": self._answer(json.loads(line))}
            except MvlmError as error:
                reply = {"error": str(error)}
            except Exception as error:
                traceback.print_exc()
                reply = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(reply), file=replies, flush=True)

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "prepare":
                return _prepare(request)
            case "open":
                return self._open(request)
            case "prefill":
                return {"seconds": self._prefill(request["positions"])}
            case "decode":
                return self._decode(request["tokens"], request["max_seconds"])
            case "decode_batch":
                return self._decode_batch(request)
            case "encode_image":
                return {"seconds": _timed(self._tool.encode_image)}
            case "features":
                return self._features()
            case "first_token":
                return self._first_token(request["words"])
            case "peak":
                return {"bytes": peak_rss_bytes()}
            case unknown:
                raise ValueError(f"no request {unknown!r}")

    def _open(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._setup = Setup.from_json(request["setup"])
        self._runner = import_module(request["module"]).open_runner(self._setup)
        if self._setup.has_vision:
            self._tool.set_image(bundled_image(self._setup))
        return self._tool.facts()

    def _prefill(self, positions: int) -> float:
        ids = prompt(self._opened, positions)
        seconds = _timed(lambda: self._tool.prefill(ids))
        self._prompt = self._used = positions
        return seconds

    def _decode(self, tokens: int, max_seconds: float) -> dict[str, Any]:
        """Decode so many tokens, or as many as there is time for.

        Where they do not fit into the cache any more, the prompt is read again before.
        """
        if self._prompt and self._used + tokens > self._opened.context:
            self._prefill(self._prompt)
        begin = time.perf_counter()
        done = 0
        while done < tokens and (done == 0 or time.perf_counter() - begin < max_seconds):
            self._tool.decode()
            done += 1
        self._used += done
        return {"seconds": time.perf_counter() - begin, "tokens": done}

    def _decode_batch(self, request: Mapping[str, Any]) -> dict[str, Any]:
        batch = self._tool
        if not isinstance(batch, BatchRunner):
            raise MvlmError("the tool's runner decodes one sequence at a time")
        ids = prompt(self._opened, request["positions"])
        # Prompts that part early: a tool may share what they have in common.
        count = request["sequences"]
        batch.begin_batch([[ids[0], *ids[1 + at :], *ids[1 : 1 + at]] for at in range(count)])
        self._prompt = self._used = 0
        seconds = sum(_timed(batch.decode_batch) for _ in range(request["tokens"]))
        return {"seconds": seconds}

    def _first_token(self, count: int) -> dict[str, Any]:
        shown, ids = bundled_image(self._opened), words(self._opened, count)
        self._prompt = self._used = 0
        return {"seconds": _timed(lambda: self._tool.first_token(shown, ids))}

    def _features(self) -> dict[str, Any]:
        features = self._tool.features()
        if features is None:
            return {"shape": None}
        data = np.ascontiguousarray(features, "<f4")
        return {"shape": list(data.shape), "base64": base64.b64encode(data.data).decode()}

    @property
    def _opened(self) -> Setup:
        assert self._setup is not None, "a model is opened first"
        return self._setup

    @property
    def _tool(self) -> Runner:
        assert self._runner is not None, "a model is opened first"
        return self._runner


def _prepare(request: Mapping[str, Any]) -> dict[str, Any]:
    tower = request["vision_tower"]
    import_module(request["module"]).prepare(
        Path(request["checkpoint"]), Path(tower) if tower else None, Path(request["folder"])
    )
    return {}


def _timed(call: Callable[[], None]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    """Serve on the standard streams, of which libraries get none."""
    end_with_parent()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    Worker().serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
