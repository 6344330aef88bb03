"""Small random checkpoints and their artifacts, made when a test first asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.models.quantization import plan_quantization
from tests.once import make_once
from tests.reference.checkpoints import write_random_checkpoint


class ArtifactCache:
    """Checkpoints and artifacts by family and quantization; shared, so never to be changed.

    Args:
        folder: Where they are written; the processes of a session may share it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def checkpoint(self, family: str) -> Path:
        """Return the checkpoint of a family of `tests.reference.families`."""
        # A folder of its own, which the tower of a V1 lies in as well.
        folder = make_once(
            self._folder / family,
            lambda folder: write_random_checkpoint(folder / family, family, seed=0),
        )
        return folder / family

    def artifact(
        self,
        family: str,
        quantization: str = "q0f32",
        vision: str | None = None,
        cache: str | None = None,
        **options: Any,
    ) -> Path:
        """Return the artifact of a family; `options` are those of `plan_job`."""
        schemes = {"vision": vision, "cache": cache}
        named = options | {part: scheme for part, scheme in schemes.items() if scheme}
        suffix = "-".join(f"{key}={value}" for key, value in sorted(named.items()))
        checkpoint = self.checkpoint(family)

        def compile_artifact(folder: Path) -> None:
            planned = plan_quantization(quantization, vision=vision, cache=cache)
            compile_job(plan_job(checkpoint, quantization=planned, **options), folder)

        name = "-".join(filter(None, ("artifact", family, quantization, suffix)))
        return make_once(self._folder / name, compile_artifact)
