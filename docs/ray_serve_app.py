"""Replicas of the server on a Ray cluster, as many as the requests need; see ray_serve.md.

``serve run ray_serve_app:build artifact=/models/mobilevlm-host threads=4``
"""

from __future__ import annotations

from pathlib import Path

from ray import serve
from starlette.applications import Starlette

from mvlm.runtime.engine import EngineSettings
from mvlm.runtime.server.app import create_app
from mvlm.runtime.server.models.served_model import ServedModel
from mvlm.runtime.server.settings import ServerSettings


def build(options: dict[str, str]) -> serve.Application:
    """Return the application.

    Args:
        options: `artifact`, a folder that each node has; and as they are wanted `name`, which
            requests say, `threads` of a replica, and the numbers `least` and `most` of replicas.
    """
    threads = int(options.get("threads", 1))

    def app() -> Starlette:
        # Called on the replica: a model cannot be sent there.
        name, artifact = options.get("name", "model"), Path(options["artifact"])
        served = ServedModel.load(name, artifact, threads, EngineSettings())
        return create_app([served], ServerSettings())

    @serve.deployment(
        ray_actor_options={"num_cpus": threads},
        # An engine computes sixteen answers at once. The server itself refuses what is too much.
        max_ongoing_requests=64,
        autoscaling_config={
            "min_replicas": int(options.get("least", 1)),
            "max_replicas": int(options.get("most", 4)),
            "target_ongoing_requests": 8,
            "upscale_delay_s": 5,
            "downscale_delay_s": 60,
        },
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=30,
    )
    @serve.ingress(app)
    class Server:
        """A replica: the ASGI application, with a model of its own."""

    return Server.bind()
