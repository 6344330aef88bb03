"""A device that others measure on: TVM's RPC and its tracker, spoken without the compiler."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import tvm
from tvm import rpc
from tvm.rpc.tracker import Tracker
from tvm.script import tirx as T

from mvlm.compile.tuning.devices import DevicePool, TrackerProvider
from mvlm.compile.tuning.devices.providers import known_devices
from mvlm.runtime.errors import ArtifactError, TargetError, UsageError
from mvlm.runtime.measurement.kernel_runner import (
    KernelRunner,
    MeasureRequest,
    read_arguments,
    save_arguments,
)
from mvlm.runtime.measurement.rpc_session import DESCRIBE, RUN
from mvlm.runtime.measurement.runtime_library import find_runtime_library
from mvlm.runtime.measurement.server import Address, DeviceServer
from tests.artifacts import ArtifactCache

KEY = "test"
MAGIC = 0xFF271


@T.prim_func(s_tir=True)
def doubled(x_handle: T.handle, y_handle: T.handle):
    """Double a vector."""
    x = T.match_buffer(x_handle, (64,), "float32")
    y = T.match_buffer(y_handle, (64,), "float32")
    for i in T.serial(64):
        with T.sblock("double"):
            y[i] = x[i] * T.float32(2)


@T.prim_func(s_tir=True)
def endless(x_handle: T.handle, y_handle: T.handle):
    """Go on for ever."""
    x = T.match_buffer(x_handle, (64,), "float32")
    y = T.match_buffer(y_handle, (64,), "float32")
    with T.sblock("endless"):
        y[0] = T.float32(0)
        while x[0] < y[0] + T.float32(1e30):
            y[0] = y[0] * T.float32(0.5)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("libraries")
    built = {}
    for name, function in (("doubled", doubled), ("endless", endless)):
        module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
        built[name] = folder / f"{name}.so"
        tvm.compile(module, target="llvm").export_library(str(built[name]))
    built["broken"] = folder / "broken.so"
    built["broken"].write_bytes(b"no library")
    return built


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arguments") / "arguments.npz"
    save_arguments(path, [np.arange(64, dtype=np.float32), np.full(64, np.nan, np.float32)])
    return path


@pytest.fixture(scope="module")
def tracker() -> Iterator[Address]:
    running = Tracker("127.0.0.1", port=19190, port_end=19290, silent=True)
    yield Address("127.0.0.1", running.port)
    running.terminate()


@contextmanager
def serving(tracker: Address | None, key: str = KEY) -> Iterator[DeviceServer]:
    """Serve in a thread; each session is a child process of ours."""
    server = DeviceServer(find_runtime_library(None), key, tracker=tracker)

    def serve() -> None:
        with contextlib.suppress(OSError, ValueError):  # it was closed
            server.serve()

    threading.Thread(target=serve, daemon=True).start()
    yield server
    server.close()


def sessions() -> list[psutil.Process]:
    """The processes that serve connections now."""
    found = []
    for child in psutil.Process().children():
        try:
            if "mvlm.runtime.measurement.rpc_session" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def test_measuring_here(libraries: dict[str, Path], arguments: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "out.npz"
    kernel_runner = KernelRunner(Path("/"), 1)
    library = str(libraries["doubled"])
    for flush_cache in (False, True):
        request = MeasureRequest(str(arguments), (library, library), 3, flush_cache, str(outputs))
        seconds = kernel_runner.run(request)["seconds"]
        assert np.shape(seconds) == (2, 3) and 0 < np.max(seconds) < 1e-3
        x, y = read_arguments(outputs)
        np.testing.assert_array_equal(y, 2 * x)
    assert np.isnan(read_arguments(arguments)[1]).all(), "a call's outputs are nobody's inputs"


def test_a_connection_without_a_tracker(libraries: dict[str, Path], arguments: Path) -> None:
    with serving(None) as server:
        session = rpc.connect(server.address.host, server.address.port, KEY)
        described = json.loads(str(session.get_function(DESCRIBE)()))
        assert described["machine"]["architecture"] and described["threads"] >= 1
        session.upload(str(arguments), "a.npz")
        session.upload(str(libraries["doubled"]), "k.so")
        run = session.get_function(RUN)
        request = {"arguments": "a.npz", "repeat": 2, "flush_cache": False, "outputs": "o.npz"}
        answer = json.loads(str(run(json.dumps({**request, "libraries": ["k.so"]}))))
        assert len(answer["seconds"][0]) == 2
        assert bytes(session.download("o.npz"))[:2] == b"PK"
        for bad in ({"libraries": ["nowhere.so"]}, {"libraries": []}, {"nonsense": 1}):
            answer = json.loads(str(run(json.dumps({**request, "libraries": ["k.so"], **bad}))))
            assert "error" in answer or answer["seconds"] == []
        with pytest.raises(Exception, match="not the name of a file"):
            session.upload(str(arguments), "../escaped.npz")
        del session, run
        wait_for(lambda: not sessions())


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<ii", MAGIC, 1 << 30),
        struct.pack("<ii", MAGIC, -1),
        struct.pack("<ii", MAGIC, 12) + b"client:other",
        struct.pack("<ii", MAGIC, 4) + b"\xff\xfe\xfd\xfc",
    ],
)
def test_untrusted_clients_are_refused(greeting: bytes) -> None:
    wait_for(lambda: not sessions())
    with serving(None) as server:
        place = (server.address.host, server.address.port)
        with socket.create_connection(place, 5) as client:
            client.sendall(greeting)
            with contextlib.suppress(OSError):  # it may have been turned away by now
                client.shutdown(socket.SHUT_WR)
                assert client.recv(64) in (b"", struct.pack("<i", MAGIC + 2))
        assert not sessions()
        # The next one is served.
        assert rpc.connect(*place, KEY).get_function(DESCRIBE)()


@pytest.mark.extended
def test_a_client_that_goes_away_within_a_kernel(
    libraries: dict[str, Path], arguments: Path, tracker: Address
) -> None:
    """What it left running is ended, and the device is free again."""
    with serving(tracker):
        provider = TrackerProvider(tracker, KEY)
        with DevicePool(provider, connect_timeout=30) as pool:
            request = MeasureRequest(
                str(arguments), (str(libraries["endless"]),), 1, flush_cache=False
            )
            pool.submit(request, timeout=100)
            wait_for(sessions)
            time.sleep(0.5)
        wait_for(lambda: not sessions())
        with DevicePool(provider) as pool:
            request = MeasureRequest(
                str(arguments), (str(libraries["doubled"]),), 3, flush_cache=False
            )
            assert len(pool.submit(request, timeout=30).result(60)[0]) == 3


@pytest.mark.extended
def test_one_device_is_killed_and_one_hangs(
    libraries: dict[str, Path], arguments: Path, tracker: Address
) -> None:
    """Of three; all the work is done, by those that are left."""
    notes: list[str] = []
    request = MeasureRequest(str(arguments), (str(libraries["doubled"]),), 20, flush_cache=False)
    with serving(tracker), serving(tracker), serving(tracker):
        provider = TrackerProvider(tracker, KEY)
        with DevicePool(provider, note=notes.append, connect_timeout=20) as pool:
            wait_for(lambda: len(pool.devices) == 3, 60)
            jobs = [pool.submit(request, timeout=5) for _ in range(60)]
            jobs[5].result(60)
            killed, hung, _ = sessions()
            killed.kill()
            os.kill(hung.pid, signal.SIGSTOP)
            assert all(len(job.result(90)[0]) == 20 for job in jobs)
            assert any("no answer within 5 s" in note for note in notes)
    wait_for(lambda: not sessions())


def test_a_tracker_that_is_not_there() -> None:
    with pytest.raises(TargetError, match=r"no tracker answers at 127.0.0.1:1\b.*refused"):
        TrackerProvider(Address("127.0.0.1", 1), KEY).addresses()


@pytest.mark.extended
def test_a_tracker_that_comes_later(tracker: Address) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(Address("127.0.0.1", port)):
        time.sleep(0.5)
        late = Tracker("127.0.0.1", port=port, port_end=port + 1, silent=True)
        try:
            address = Address("127.0.0.1", port)
            wait_for(lambda: [key for key, _ in known_devices(address)] == [KEY])
        finally:
            late.terminate()


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":9190", "host:port", "host:0", "host:99999"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        Address.parse(text, "--rpc")


def test_a_port_that_is_taken() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UsageError, match="cannot listen"),
    ):
        DeviceServer(find_runtime_library(None), KEY, port=taken.getsockname()[1])


def test_the_library_is_an_artifact_s(artifact_cache: ArtifactCache, tmp_path: Path) -> None:
    artifact = artifact_cache.artifact("text")
    assert find_runtime_library(artifact) == artifact / "lib" / "libtvm_runtime.so"
    with pytest.raises(ArtifactError):
        find_runtime_library(tmp_path)
