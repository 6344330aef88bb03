"""A server of a small model in this process, on a port of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette

from mvlm.runtime.engine import EngineSettings
from mvlm.runtime.server.app import create_app
from mvlm.runtime.server.http.connections import ConnectionLimits
from mvlm.runtime.server.http.http_server import HttpServer
from mvlm.runtime.server.models.served_model import ServedModel
from mvlm.runtime.server.remote_images import RemoteImages
from mvlm.runtime.server.settings import ServerSettings
from tests.artifacts import ArtifactCache

NAME = "small"
FAMILY = "linear"


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    served: ServedModel
    url: str
    app: Starlette

    def openai(self, **options: Any) -> openai.OpenAI:
        options = {"api_key": "none", "max_retries": 0} | options
        return openai.OpenAI(base_url=f"{self.url}/v1", **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=60, **options)

    def wait_until_idle(self) -> None:
        """Wait until nothing is computed, and all pages are free or in the prefix cache."""
        engine = self.served.engine._engine
        end = time.monotonic() + 20
        while not engine.is_idle:
            assert time.monotonic() < end, "the engine goes on"
            time.sleep(0.01)
        assert engine.pool.free + engine.prefixes.pages == engine.pool.size


Serve = Callable[..., Any]


@contextmanager
def listening(app: Starlette, limits: ConnectionLimits | None = None) -> Iterator[str]:
    """Serve an application in a thread; yields its address."""
    server, listener = HttpServer(app, limits), socket.create_server(("127.0.0.1", 0))
    server.config.timeout_graceful_shutdown = 5
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < end and thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def serve(artifact_cache: ArtifactCache) -> Serve:
    """Serve the model by other settings, for a while."""

    @contextmanager
    def running(
        engine: EngineSettings | None = None,
        images: RemoteImages | None = None,
        limits: ConnectionLimits | None = None,
        **settings: Any,
    ) -> Iterator[Running]:
        artifact = artifact_cache.artifact(FAMILY)
        served = ServedModel.load(NAME, artifact, 2, engine or EngineSettings(capacity=6000))
        app = create_app([served], ServerSettings(**settings), images)
        with listening(app, limits) as url:
            yield Running(served, url, app)

    return running


@pytest.fixture(scope="module")
def server(serve: Serve) -> Iterator[Running]:
    """A server by default settings."""
    with serve() as running:
        yield running
