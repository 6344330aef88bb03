"""Shows every few seconds that a run is alive, while its main thread waits."""

from __future__ import annotations

import threading

from mvlm.compile.jobs.errors import StoreError
from mvlm.compile.jobs.store import Store
from mvlm.compile.jobs.store.claims import BEAT_SECONDS, Claims


class Heart:
    """Beats for a run and its claims, from its making until :meth:`stop`.

    Args:
        store: The store.
        run: The run's name.
        claims: The run's.
    """

    def __init__(self, store: Store, run: str, claims: Claims) -> None:
        self._store, self._run, self._claims = store, run, claims
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                self._claims.beat()
                self._store.runs.beat(self._run)
            except StoreError:  # the next beat may reach it; until then others are patient
                continue
