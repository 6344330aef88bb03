"""Lets an engine compute while its owner waits for something else, such as a person."""

from __future__ import annotations

import threading
from types import TracebackType

from mvlm.runtime.engine.engine import Engine


class BackgroundSteps:
    """A block in which a thread computes the engine's steps; outside of it the engine is idle.

    Nobody else may use the engine within the block. Leaving it takes a step at the most.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="mvlm-background", daemon=True)

    def __enter__(self) -> BackgroundSteps:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _work(self) -> None:
        try:
            while not self._stop.is_set() and self._engine.step():
                pass
        except BaseException as failure:
            self._failure = failure
