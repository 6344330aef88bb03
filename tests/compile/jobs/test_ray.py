"""Runs on a Ray cluster of several nodes on this machine, of which workers and nodes are killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mvlm.compile.jobs.store import Store, open_store
from tests.cli.command_line import finish, mvlm, start
from tests.cli.every_verb import PROGRAM
from tests.compile.jobs.boards import write_board
from tests.reference import write_random_checkpoint

pytestmark = pytest.mark.ray

# Set before Ray is imported, here and in the commands that are started.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
# So that a node that was killed is missed within seconds.
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500}
NODE_BYTES = 2_000_000_000


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight jobs, of which two and two share their weights."""
    folder = tmp_path_factory.mktemp("matrix")
    for seed, name in enumerate(("one", "two")):
        write_random_checkpoint(folder / name, "text", seed=seed, num_hidden_layers=1)
    write_board(folder / "board.toml")
    path = folder / "matrix.toml"
    path.write_text(
        'models = ["one", "two"]\nquantizations = ["q0f32", "q4a8"]\n'
        'targets = ["host", "board.toml"]\n'
    )
    return path


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that computes nothing, and three nodes."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    utilities = pytest.importorskip("ray.cluster_utils")
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    cluster = utilities.Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1, memory=NODE_BYTES, object_store_memory=100_000_000)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


def begin(matrix: Path, cluster: Any, store: Path) -> subprocess.Popen[str]:
    arguments = ("--engine", f"ray={cluster.address}", "--store", store, "--json")
    return start("jobs", "run", matrix, *arguments)


def workers(store: Path) -> dict[int, int]:
    """The steps' processes and the Ray workers that wait for them."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            if "mvlm.compile.jobs.worker" in command and str(store) in command:
                # Its last argument. A process that the worker forks has the same command line.
                found[int(folder.name)] = int(command.split("\0")[-2])
        except (OSError, ValueError):
            continue
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def stop_within_a_step(kind: str, store: Store, place: Path) -> tuple[str, int, int] | None:
    """Stop a worker's process before its step of a kind has a result.

    A worker that runs has finished its step as like as not when it is killed, and then nothing is
    tried again: a result may lie in the store for a while before its worker ends. A stopped process
    gets no further until it is killed.

    Returns:
        The step's key, the stopped process and the Ray worker that waits for it; None if no worker
        has begun such a step, or all have a result.
    """
    for process, waiting in workers(place).items():
        with suppress(OSError):  # it has ended
            if parent(process) != waiting:  # the worker forked it
                continue
            os.kill(process, signal.SIGSTOP)
            key = _key_of_step(kind, process)
            if key and store.find_complete(kind, key) is None:
                return key, process, waiting
            os.kill(process, signal.SIGCONT)
    return None


def _key_of_step(kind: str, process: int) -> str:
    """Wait until a process has stopped or ended; return its step's key if it is of that kind."""
    stat = Path(f"/proc/{process}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] in "TZX", 10)
    # The log's first line names the step: TIME NAME: KIND KEY.
    line = Path(f"/proc/{process}/fd/1").read_text().partition("\n")[0]
    found = re.search(rf": {kind} ([0-9a-f]{{64}})$", line)
    return found[1] if found else ""


def wait_for(find: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := find():
            return found
        time.sleep(0.05)
    raise AssertionError("it never happened")


def finished(store: Store, run: str) -> Counter[str]:
    """How often each step's log says that it was done."""
    found = store.runs.find(run)
    logs = {step.name: store.runs.log(run, step.key) for step in found.steps}
    return Counter({name: log.count(" done in ") for name, log in logs.items()})


def assert_whole(store: Store, jobs: int) -> None:
    artifacts = store.files.names("artifacts")
    assert len(artifacts) == jobs
    for name in artifacts:
        assert store.find_complete("artifact", name.removesuffix(".json"), verify=True) is not None
    assert store.files.names("leases") == []
    store.gc()
    assert store.files.names("tmp") == []


def test_ray_worker_and_node_are_killed(matrix: Path, cluster: Any, tmp_path: Path) -> None:
    place = tmp_path / "store"
    store = open_store(str(place))
    process = begin(matrix, cluster, place)
    # A Ray worker, whose step ends with it.
    first, step, worker = wait_for(lambda: stop_within_a_step("weights", store, place))
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: step not in workers(place))
    # A node, in the middle of compiling.
    second, step, worker = wait_for(lambda: stop_within_a_step("artifact", store, place))
    node = next(node for node in cluster.worker_nodes if _raylet(node) == parent(worker))
    cluster.remove_node(node, allow_graceful=False)
    wait_for(lambda: step not in workers(place))
    result = finish(process, 300)
    assert result.exit_code == 0, result.stderr
    document = result.json
    assert document["counts"]["done"] == 8
    steps = {step["key"]: step for step in (*document["jobs"], *document["weights"])}
    assert steps[first]["attempts"] >= 2 and steps[second]["attempts"] >= 2
    # None was finished twice, in the store or by any worker.
    assert set(finished(store, document["run"]).values()) == {1}
    assert_whole(store, 8)
    again = mvlm("jobs", "run", matrix, "--store", place, "--json", "--verify")
    assert again.json["counts"]["reused"] == 8


def _raylet(node: Any) -> int:
    (info,) = node.all_processes["raylet"]
    return int(info.process.pid)


def test_ray_runs_share_the_work(matrix: Path, cluster: Any, tmp_path: Path) -> None:
    place = tmp_path / "store"
    store = open_store(str(place))
    processes = [begin(matrix, cluster, place) for _ in range(2)]
    documents = [finish(process, 300).json for process in processes]
    assert [document["state"] for document in documents] == ["done", "done"]
    counts = [document["counts"] for document in documents]
    assert sum(count["done"] for count in counts) == 8
    assert sum(count["reused"] for count in counts) == 8
    assert all(count["done"] for count in counts)
    together = sum((finished(store, document["run"]) for document in documents), Counter())
    assert set(together.values()) == {1} and len(together) == 12
    assert_whole(store, 8)


def test_ray_cancel_frees_the_cluster(matrix: Path, cluster: Any, tmp_path: Path) -> None:
    place = tmp_path / "store"
    process = begin(matrix, cluster, place)
    wait_for(lambda: workers(place))
    assert mvlm("jobs", "cancel", "--store", place).exit_code == 0
    result = finish(process, 60)
    assert (result.exit_code, result.json["state"]) == (1, "cancelled")
    wait_for(lambda: not workers(place), 30)
    assert open_store(str(place)).files.names("leases") == []


def test_ray_step_too_large_for_all_nodes(matrix: Path, cluster: Any, tmp_path: Path) -> None:
    code = (
        "import sys; from mvlm.compile.jobs import plan; from mvlm.cli.app import run;"
        f"plan.PROGRAM_BYTES = {2 * NODE_BYTES}; sys.exit(run(sys.argv[1:]))"
    )
    arguments = ("--engine", f"ray={cluster.address}", "--store", tmp_path / "store", "--json")
    result = finish(start("jobs", "run", matrix, *arguments, code=code))
    assert result.exit_code == 1
    assert "no node has the memory: expected about 4.00 GB, found 2.00 GB" in result.stderr
    assert result.json["counts"]["failed"] == 8


def test_ray_only_node_large_enough_dies(matrix: Path, cluster: Any, tmp_path: Path) -> None:
    """What waits for it within Ray would wait for ever: it fails with the numbers."""
    place, store = tmp_path / "store", open_store(str(tmp_path / "store"))
    large = cluster.add_node(num_cpus=1, memory=3 * NODE_BYTES, object_store_memory=100_000_000)
    cluster.wait_for_nodes()
    code = (
        "import sys; from mvlm.compile.jobs import plan; from mvlm.cli.app import run;"
        f"plan.PROGRAM_BYTES = {2 * NODE_BYTES}; sys.exit(run(sys.argv[1:]))"
    )
    arguments = ("--engine", f"ray={cluster.address}", "--store", place, "--json")
    process = start("jobs", "run", matrix, *arguments, code=code)
    wait_for(lambda: len(store.files.names("weights")) == 4 and workers(place))
    cluster.remove_node(large, allow_graceful=False)
    result = finish(process, 120)
    assert result.exit_code == 1
    assert "no node has the memory: expected about 4.00 GB, found 2.00 GB" in result.stderr
    assert store.files.names("leases") == []


def test_ray_cluster_of_its_own(matrix: Path, tmp_path: Path) -> None:
    environment = os.environ | ENVIRONMENT
    command = ["jobs", "run", matrix, "--engine", "ray", "--store", tmp_path / "store", "--json"]
    result = subprocess.run(
        [sys.executable, "-m", "mvlm.cli", *map(str, command), "--workers", "2"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert_whole(open_store(str(tmp_path / "store")), 8)


def test_ray_cluster_unreachable(matrix: Path, tmp_path: Path) -> None:
    result = finish(
        start("jobs", "run", matrix, "--engine", "ray=127.0.0.1:1", "--store", tmp_path / "store"),
        60,
    )
    assert result.exit_code == 1
    assert "the Ray cluster 127.0.0.1:1 cannot be reached" in result.stderr
    assert not (tmp_path / "store" / "runs").exists()


def test_ray_workers_import_nothing_from_the_current_folder(
    matrix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would let them search modules where it was connected from."""
    folder, log = tmp_path / "untrusted", tmp_path / "planted.log"
    folder.mkdir()
    for name in ("tvm", "numpy", "fsspec", "safetensors", "random", "tomli"):
        (folder / f"{name}.py").write_text(f"open({os.fspath(log)!r}, 'a').write({name!r})")
    monkeypatch.chdir(folder)
    line = [PROGRAM, "jobs", "run", matrix, "--engine", "ray", "--store", tmp_path / "store"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert not log.exists(), log.read_text()
    assert done.returncode == 0, done.stderr
