"""`mvlm device tracker` and `serve` with unknown clients, on taken ports, and at their end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from tvm import rpc
from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode

from mvlm.compile.jobs.engines.ray_cluster import _require_listener
from mvlm.compile.tuning.devices.providers import known_devices
from mvlm.compile.tuning.devices.tracker import run_tracker
from mvlm.runtime.errors import TargetError, UsageError
from mvlm.runtime.measurement.server import Address
from tests.cli.command_line import mvlm

MAGIC = struct.pack("<i", RPC_TRACKER_MAGIC)


def message(value: object) -> bytes:
    text = json.dumps(value).encode()
    return struct.pack("<i", len(text)) + text


def info(key: object, address: object) -> bytes:
    return message([TrackerCode.UPDATE_INFO, {"key": key, "addr": address}])


class Tracker(threading.Thread):
    """A tracker in a thread of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        self.notes: list[str] = []
        self.start()

    def run(self) -> None:
        run_tracker(self._listener, self.notes.append)

    def wait_for_notes(self, count: int) -> None:
        end = time.monotonic() + 20
        while len(self.notes) < count:
            assert time.monotonic() < end, f"{self.notes} are fewer than {count}"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker()


def talk(address: Address, *parts: bytes) -> bytes:
    """Say things one after the other; return what came back until the other side closed."""
    heard = b""
    with (
        socket.create_connection((address.host, address.port), 10) as client,
        contextlib.suppress(OSError),  # it may have been turned away by now
    ):
        for part in parts:
            client.sendall(part)
            if part == MAGIC:
                heard += client.recv(4)
        client.shutdown(socket.SHUT_WR)
        while data := client.recv(4096):
            heard += data
    return heard


STRANGERS = {
    "another protocol": (b"GET / HTTP/1.1\r\n\r\n",),
    "a wrong number": (b"\xff\xff\xff\xff",),
    "text that is not UTF-8": (MAGIC, struct.pack("<i", 3) + b"\xff\xfe\xfd"),
    "text that is not JSON": (MAGIC, struct.pack("<i", 3) + b"{{{"),
    "a number": (MAGIC, message(7)),
    "nothing in a list": (MAGIC, message([])),
    "a code that there is not": (MAGIC, message(["x"])),
    "a device without an address": (MAGIC, info("server:x", None)),
    "a device with half an address": (MAGIC, info("server:x", ["1.2.3.4"])),
    "a device without a name": (MAGIC, info(7, [None, 1])),
    "a port that is none": (MAGIC, info("server:x", [None, "y"])),
    "an offer that is none": (MAGIC, message([TrackerCode.PUT, {}, [1, []], None])),
    "a request that is none": (MAGIC, message([TrackerCode.REQUEST])),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_unknown_client_is_logged_in_one_line_and_does_no_harm(
    tracker: Tracker, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = len(tracker.notes)
    talk(tracker.address, *STRANGERS[name])
    tracker.wait_for_notes(before + 1)
    told = tracker.notes[before:]
    assert len(told) == 1 and told[0].startswith("refused a peer. ") and "\n" not in told[0]
    assert known_devices(tracker.address) == []
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


@pytest.mark.parametrize(
    "parts",
    [(), (b"\x71",), (MAGIC,), (MAGIC, b"\x00\x00\x00\x00"), (MAGIC, b"\xff\xff\xff\x7f123")],
)
def test_silent_and_flooding_clients_do_no_harm(
    tracker: Tracker, parts: tuple[bytes, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    talk(tracker.address, *parts)
    assert known_devices(tracker.address) == []
    assert capfd.readouterr().err == ""


def test_a_device_is_known_while_it_is_there(tracker: Tracker) -> None:
    """By TVM's own client too, which asks for it."""
    place = (tracker.address.host, tracker.address.port)
    with socket.create_connection(place, 10) as device:
        device.sendall(MAGIC)
        assert device.recv(4) == MAGIC
        device.sendall(info("server:phone", [None, 1234]))
        device.sendall(message([TrackerCode.PUT, "phone", [1234, "phone:0.5"], None]))
        end = time.monotonic() + 20
        session = rpc.connect_tracker(*place)
        while session.summary()["queue_info"].get("phone", {}).get("free") != 1:
            assert time.monotonic() < end
        assert known_devices(tracker.address) == [("phone", "127.0.0.1:1234")]
    while session.summary()["queue_info"]["phone"]["free"]:
        assert time.monotonic() < end
    assert known_devices(tracker.address) == []
    session.close()


def test_a_tracker_that_answers_nonsense() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for reply in (b"", MAGIC + message([TrackerCode.SUCCESS, {"server_info": [{}]}])):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(reply)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(TargetError, match="no tracker answers"):
            known_devices(Address("127.0.0.1", listener.getsockname()[1]))


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["-1", "65536", "99999", "1" + "0" * 30])
@pytest.mark.parametrize("verb", ["serve", "tracker"])
def test_ports_out_of_range(verb: str, port: str) -> None:
    result = mvlm("device", verb, f"--port={port}")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: --port: expected 1 to 65535, or 0 for any that is free, found {port}\n"
    )


@pytest.mark.parametrize("host", ["", "a..b", "x" * 64 + ".example", "\udcff"])
@pytest.mark.parametrize("verb", ["serve", "tracker"])
def test_hosts_that_are_none(verb: str, host: str) -> None:
    result = mvlm("device", verb, f"--host={host}", "--port=0")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --host: expected an address or a name, found ")


@pytest.mark.parametrize(
    "text", ["host:0", "host:65536", "a..b:9190", "host:" + "9" * 5000, "\udcff:1", ":1", "host"]
)
def test_addresses_of_trackers_out_of_range(text: str) -> None:
    for verb in ("list", "serve"):
        result = mvlm("device", verb, f"--tracker={text}")
        assert result.exit_code == 2
        assert "--tracker: expected HOST:PORT" in result.stderr
        assert "with a port from 1 to 65535, found " in result.stderr


@pytest.mark.parametrize("address", ["host:65536", "ray://host:0", "host:" + "9" * 5000])
def test_addresses_of_clusters_out_of_range(address: str) -> None:
    with pytest.raises(UsageError, match=r"ray=ADDRESS: expected HOST:PORT.*1 to 65535"):
        _require_listener(address)


# --- processes ----------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(verb: str) -> Iterator[subprocess.Popen[str]]:
    """Run a verb in a process group of its own, from when it says that it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mvlm.cli", "device", verb, "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "127.0.0.1:" in line, line + process.stderr.read()
    return int(line.rpartition(":")[2])


@pytest.mark.parametrize(
    ("verb", "number"),
    [
        ("serve", signal.SIGINT),
        ("serve", signal.SIGTERM),
        ("serve", signal.SIGHUP),
        ("tracker", signal.SIGINT),
        ("tracker", signal.SIGTERM),
    ],
)
def test_a_signal_ends_it_without_a_traceback_and_leaves_nothing(
    verb: str, number: signal.Signals
) -> None:
    """The signal goes to the whole process group, as from a terminal."""
    with serving(verb) as process:
        address = ("127.0.0.1", port_of(process))
        with socket.create_connection(address, 10) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert process.stderr is not None
            assert process.stderr.readline().startswith("refused ")
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=30)
        is_ctrl_c = number == signal.SIGINT
        said = "interrupted\n" if is_ctrl_c else f"terminated by {number.name}\n"
        assert (process.returncode, out, err) == (128 + number, "", said)
        assert not psutil.wait_procs(children, timeout=10)[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 1)


def test_a_signal_ends_the_session_that_a_client_has() -> None:
    with serving("serve") as process:
        port = port_of(process)
        session = rpc.connect("127.0.0.1", port, "device")
        assert session.get_function("mvlm.device.describe")()
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 143
        assert "Traceback" not in err
        assert not psutil.wait_procs(children, timeout=10)[1]


@pytest.mark.parametrize("verb", ["serve", "tracker"])
def test_a_taken_port_is_one_line(verb: str) -> None:
    """At the process's very end too, where destructors run."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run(
            [sys.executable, "-m", "mvlm.cli", "device", verb, f"--port={port}"],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: cannot listen at 127.0.0.1:{port}: found Address already in use. "
        "Name another --host or --port.\n"
    )
