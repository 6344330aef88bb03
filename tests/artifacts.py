"""Small random checkpoints and their artifacts, made when a test first asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mvlm.compile.driver import compile_job
from mvlm.compile.job import plan_job
from mvlm.models.quantization import plan_quantization
from tests.reference.checkpoints import write_random_checkpoint


class ArtifactCache:
    """Checkpoints and artifacts by family and quantization; shared, so never to be changed.

    Args:
        folder: Where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def checkpoint(self, family: str) -> Path:
        """Return the checkpoint of a family of `tests.reference.families`."""
        folder = self._folder / family
        return folder if folder.exists() else write_random_checkpoint(folder, family, seed=0)

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
        folder = self._folder / "-".join(filter(None, (family, quantization, suffix)))
        if not folder.exists():
            checkpoint = self.checkpoint(family)
            planned = plan_quantization(quantization, vision=vision, cache=cache)
            compile_job(plan_job(checkpoint, quantization=planned, **options), folder)
        return folder
