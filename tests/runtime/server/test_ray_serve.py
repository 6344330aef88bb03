"""Replicas of the server on a Ray cluster of several nodes, one of which is killed under load."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from mvlm.runtime.chat import Chat
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from tests.artifacts import ArtifactCache

pytestmark = pytest.mark.ray
DOCS = Path(__file__).parents[3] / "docs"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    # Where replicas find the example.
    "PYTHONPATH": str(DOCS),
}
QUESTIONS = [f"What is number {n}?" for n in range(6)]
TOKENS = 300
CLIENTS = 24


@pytest.fixture(scope="module")
def artifact(artifact_cache: ArtifactCache) -> Path:
    return artifact_cache.artifact("linear")


@pytest.fixture
def url(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The example on a head that computes nothing and three nodes: one to three replicas."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    ray = pytest.importorskip("ray")
    serve = pytest.importorskip("ray.serve")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        import ray_serve_app

        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        serve.start("HeadOnly", {"host": "127.0.0.1", "port": port})
        serve.run(ray_serve_app.build({"artifact": str(artifact), "most": "3"}))
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


def replicas() -> list[int]:
    """The processes of the replicas."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica"):
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


class Client(threading.Thread):
    """Asks one question after the other until it is told to stop."""

    def __init__(self, url: str, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        # Retries are the client's own: an answer that has begun dies with its replica.
        self._client = openai.OpenAI(base_url=url, api_key="none", max_retries=5)
        self._number, self._stop_asking = number, stop
        self.answers: list[tuple[str, str]] = []
        self.errors: list[Exception] = []

    def run(self) -> None:
        while not self._stop_asking.is_set():
            self._number += 1
            question = QUESTIONS[self._number % len(QUESTIONS)]
            try:
                self.answers.append((question, self._ask(question)))
            except Exception as error:
                self.errors.append(error)

    def _ask(self, question: str) -> str:
        found: Any = self._client.chat.completions.create(
            model="model",
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=TOKENS,
        )
        return str(found.choices[0].message.content)


def test_replicas_come_with_the_load_and_after_a_death(url: str, artifact: Path) -> None:
    model, params = Model(artifact, 1), SamplingParams(max_tokens=TOKENS)
    alone = {each: Chat(model).generate(each, params=params).completion.text for each in QUESTIONS}
    assert len(replicas()) == 1
    stop = threading.Event()
    clients = [Client(url, number, stop) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        wait_for(lambda: len(replicas()) >= 2, 90, "one replica stays alone")
        victim, *others = replicas()
        os.kill(victim, signal.SIGKILL)
        before = sum(len(client.answers) for client in clients)
        wait_for(
            lambda: victim not in replicas() and len(set(replicas()) - {victim, *others}) >= 1,
            90,
            "no replica came for the one that was killed",
        )
        wait_for(
            lambda: sum(len(client.answers) for client in clients) > before + 2 * CLIENTS,
            90,
            "no answers come",
        )
    finally:
        stop.set()
        for client in clients:
            client.join(60)
    assert not any(client.errors for client in clients), [c.errors[:1] for c in clients]
    found = [each for client in clients for each in client.answers]
    assert len(found) > 2 * CLIENTS
    for question, text in found:
        assert text == alone[question]
