"""A tool's process: whatever it does, there is an answer or an error, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from mvlm.bench.peers.tool_process import PeerError, ToolProcess
from mvlm.bench.peers.worker import Worker
from tests.cli.command_line import finish

FAKE = (sys.executable, "-m", "tests.bench.fake_peer")


def is_running(pid: int) -> bool:
    with suppress(OSError):
        os.kill(pid, 0)
        return True
    return False


def wait_for_end(pid: int, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not is_running(pid):
            return True
        time.sleep(0.02)
    return False


def test_tool_process_answers_and_ends() -> None:
    with ToolProcess("fake", FAKE) as child:
        assert child.ask("prefill", 60, positions=3) == {"seconds": 0.01}
        pid = child.pid
    assert not is_running(pid)


def test_tool_failure_is_reported_and_the_process_goes_on() -> None:
    with ToolProcess("fake", (*FAKE, "refuse=prefill")) as child:
        with pytest.raises(PeerError, match="fake fails at `prefill`: found no such model"):
            child.ask("prefill", 60)
        assert child.ask("peak", 60) == {"bytes": 1e6}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("crash", "fake ended at `prefill`: found SIGKILL: about to go"),
        ("hang", "fake hangs: expected an answer to `prefill` within 3 s, found none"),
        (
            "rubbish",
            "fake answers nonsense: expected a reply to `prefill`, found 'ggml: hello there'",
        ),
    ],
)
def test_faulty_tool_is_an_error_and_leaves_no_process(fault: str, words: str) -> None:
    with ToolProcess("fake", (*FAKE, f"{fault}=prefill")) as child:
        child.ask("peak", 60)
        with pytest.raises(PeerError) as raised:
            child.ask("prefill", 3)
        assert str(raised.value) == words
        assert not is_running(child.pid)


def test_tool_process_start_failure_says_why() -> None:
    with (
        ToolProcess("fake", (sys.executable, "-c", "import no_such_module")) as child,
        pytest.raises(PeerError, match="exit code 1: ModuleNotFoundError"),
    ):
        child.ask("prefill", 60)


PARENT = """
import sys
from mvlm.bench.peers.tool_process import ToolProcess
child = ToolProcess("fake", (sys.executable, "-m", "tests.bench.fake_peer", "hang=prefill"))
child.ask("peak", 60)
print(child.pid, flush=True)
child.ask("prefill", 600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_parent_leaves_no_tool_process(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(number)
    finish(parent)
    assert wait_for_end(child)


def test_tool_worker_reports_errors_and_goes_on() -> None:
    import io
    import json

    requests = io.StringIO(
        '{"do": "dance"}\nnonsense\n{"do": "prefill", "positions": 1}\n{"do": "peak"}\n'
    )
    replies = io.StringIO()
    Worker().serve(requests, replies)
    found = [json.loads(line) for line in replies.getvalue().splitlines()]
    assert "no request 'dance'" in found[0]["error"]
    assert "JSONDecodeError" in found[1]["error"]
    assert "a model is opened first" in found[2]["error"]
    assert found[3]["ok"]["bytes"] > 1e6


def test_library_output_is_no_reply() -> None:
    """The real worker, and a tool that prints to the standard output as C does."""
    code = (
        "import os, sys; from mvlm.bench.peers import worker; plain = worker.peak_rss_bytes\n"
        "worker.peak_rss_bytes = lambda: os.write(1, b'C prints this') and plain()\n"
        "worker.main()"
    )
    with ToolProcess("chatty", (sys.executable, "-c", code)) as child:
        assert child.ask("peak", 60)["bytes"] > 1e6
