"""The threads that are linked into every compiled library, called as compiled code calls them."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mvlm.compile.toolchain import find_linker
from mvlm.runtime import threads as runtime_threads
from mvlm.runtime.errors import UsageError
from mvlm.runtime.folders import package_folder
from mvlm.runtime.targets.description import Needs
from mvlm.runtime.targets.platforms import PLATFORMS
from mvlm.runtime.threads import ThreadPool

SOURCE = package_folder("mvlm.runtime") / "native" / "thread_pool.c"
STRESS = Path(__file__).parent / "thread_pool_stress.c"
BODY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
# What compiled code has for the pointer that it launches loops through.
LAUNCH_POINTER = "void *__TVMBackendParallelLaunch;\n"
SECONDS = 60


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library as the compiler makes it, without kernels."""
    folder = tmp_path_factory.mktemp("pool")
    linker = find_linker(platform.machine(), PLATFORMS["linux"], Needs())
    (folder / "kernels.c").write_text(LAUNCH_POINTER)
    kernels = folder / "kernels.o"
    linker.run("compiling", "-c", "-fPIC", "-o", kernels, folder / "kernels.c")
    linker.link(folder / "model.so", [kernels])
    return folder / "model.so"


@pytest.fixture
def start(library: Path) -> Iterator[Callable[[int], Callable[..., int]]]:
    """Start a pool of so many threads; return what its library launches loops through."""
    pools: list[ThreadPool] = []

    def started(threads: int) -> Callable[..., int]:
        pools.append(ThreadPool(library, threads))
        pointer = ctypes.c_void_p.in_dll(ctypes.CDLL(str(library)), "__TVMBackendParallelLaunch")
        kind = ctypes.CFUNCTYPE(ctypes.c_int, BODY, ctypes.c_void_p, ctypes.c_int32)
        return ctypes.cast(pointer, kind)

    yield started
    for pool in pools:
        pool.close()


Workers = Callable[[], list[threading.Thread]]


@pytest.fixture
def workers() -> Workers:
    """Return the worker threads that a test has started; other tests' models have theirs."""

    def found() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name.startswith("mvlm-worker")]

    before = found()
    return lambda: [each for each in found() if each not in before]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 64])
def test_each_task_runs_once(
    start: Callable[[int], Callable[..., int]], threads: int, tasks: int
) -> None:
    launch, ran = start(threads), []
    for _ in range(20):
        assert launch(BODY(lambda task, *_: ran.append(task) or 0), None, tasks) == 0
        assert sorted(ran) == list(range(tasks or threads))  # 0: as many as there are threads
        ran.clear()


def test_tasks_run_at_the_same_time(start: Callable[[int], Callable[..., int]]) -> None:
    launch, meeting = start(3), threading.Barrier(3, timeout=SECONDS)

    def body(*_: object) -> int:
        meeting.wait()
        return 0

    for _ in range(5):
        assert launch(BODY(body), None, 3) == 0
    assert not meeting.broken


def test_a_worker_that_does_not_come_is_not_waited_for(
    start: Callable[[int], Callable[..., int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the system has no thread left, or gives one no time."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        launch = start(4)
    places: list[int] = []
    assert launch(BODY(lambda *_: places.append(threading.get_ident()) or 0), None, 9) == 0
    assert places == [threading.get_ident()] * 9


def test_a_loop_within_a_task_runs_on_its_thread(
    start: Callable[[int], Callable[..., int]],
) -> None:
    launch = start(2)
    inner: list[tuple[int, bool]] = []

    def outer(*_: object) -> int:
        here = threading.get_ident()
        body = BODY(lambda task, *_: inner.append((task, threading.get_ident() == here)) or 0)
        return launch(body, None, 5)

    assert launch(BODY(outer), None, 2) == 0
    assert sorted(inner) == sorted([(task, True) for task in range(5)] * 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_reaches_the_thread_that_launched(
    start: Callable[[int], Callable[..., int]], threads: int
) -> None:
    process, launch = ctypes.CDLL(None), start(threads)
    meeting = threading.Barrier(threads, timeout=SECONDS)

    def body(task: int, *_: object) -> int:
        meeting.wait()  # so that task 1 is a worker's
        if task != threads - 1:
            return 0
        process.TVMFFIErrorSetRaisedFromCStr(b"ValueError", b"no such row")
        return -1

    assert launch(BODY(body), None, threads) == -1
    error = ctypes.c_void_p()
    process.TVMFFIErrorMoveFromRaised(ctypes.byref(error))
    assert error.value is not None
    process.TVMFFIErrorMoveFromRaised(ctypes.byref(error))
    assert error.value is None  # it was raised once
    meeting = threading.Barrier(threads, timeout=SECONDS)
    assert launch(BODY(lambda *_: meeting.wait() and 0), None, threads) == 0  # and is forgotten


def test_threads_end_with_their_pool_or_the_next(library: Path, workers: Workers) -> None:
    first = ThreadPool(library, 3)
    assert len(workers()) == 2
    second = ThreadPool(library, 2)  # of the same library
    first.close()
    assert len(workers()) == 1
    second.close()
    assert workers() == []
    first.close()  # nothing is left to be done


def test_a_pool_lets_its_library_go_once(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go: list[int] = []
    monkeypatch.setattr(runtime_threads._ctypes, "dlclose", let_go.append)
    pool = ThreadPool(library, 2)
    pool.close()
    pool.close()
    assert let_go == [pool._library._handle]


def test_threads_may_run_on_every_fast_core_and_their_caller_where_it_did(
    library: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = os.sched_getaffinity(0)
    fast = min(allowed)
    monkeypatch.setattr(runtime_threads, "fast_cores", lambda: (fast,))
    pool = ThreadPool(library, 1 + 1)  # more threads than fast cores: on all that are allowed
    [worker] = workers()
    assert worker.native_id is not None
    assert os.sched_getaffinity(worker.native_id) == allowed == os.sched_getaffinity(0)
    pool.close()
    cores = runtime_threads._cores(1)
    assert cores == {fast}


def test_a_child_process_computes_without_the_threads(
    start: Callable[[int], Callable[..., int]],
) -> None:
    """A fork has the calling thread alone."""
    launch, ran = start(2), []
    child = os.fork()
    if child == 0:
        is_done = launch(BODY(lambda task, *_: ran.append(task) or 0), None, 4) == 0
        os._exit(0 if is_done and sorted(ran) == [0, 1, 2, 3] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_library_without_parallel_loops_has_no_threads(tmp_path: Path, workers: Workers) -> None:
    linker = find_linker(platform.machine(), PLATFORMS["linux"], Needs())
    linker.link(tmp_path / "model.so", [])
    pool = ThreadPool(tmp_path / "model.so", 2)
    assert workers() == []
    pool.close()


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "1000001", "9" * 5000])
def test_time_to_spin_is_a_number(
    library: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("MVLM_SPIN_MICROSECONDS", text)
    with pytest.raises(UsageError, match=r"\$MVLM_SPIN_MICROSECONDS: expected microseconds, 0 to"):
        ThreadPool(library, 2)
    assert workers() == []


@pytest.mark.parametrize("spin_ns", [0, 1000, 20000])
@pytest.mark.parametrize("sanitizer", [None, "thread", "address,undefined"])
def test_many_loops_and_restarts(tmp_path: Path, sanitizer: str | None, spin_ns: int) -> None:
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        pytest.skip("there is no C compiler that links programs")
    options = ["-O1", f"-fsanitize={sanitizer}"] if sanitizer else ["-O2"]
    objects = [tmp_path / "pool.o", tmp_path / "stress"]
    pool = ["-std=c11", "-ffreestanding", "-Wall", "-Wextra", "-Werror", "-c", SOURCE]
    subprocess.run([compiler, *options, *pool, "-o", objects[0]], check=True)
    program = ["-std=gnu11", "-pthread", STRESS, objects[0], "-o", objects[1]]
    linked = subprocess.run([compiler, *options, *program], capture_output=True, text=True)
    if sanitizer and linked.returncode:
        pytest.skip(f"the C compiler has no sanitizer {sanitizer}")
    assert linked.returncode == 0, linked.stderr
    result = subprocess.run(
        [objects[1], str(spin_ns)], capture_output=True, text=True, timeout=SECONDS
    )
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("the sanitizer does not run with this kernel's address space randomization")
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
