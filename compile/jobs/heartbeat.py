"""Renews a run's heartbeat and its leases in a thread, while the main thread waits."""

from __future__ import annotations

import threading

from mvlm.compile.jobs.errors import StoreError
from mvlm.compile.jobs.store import Store
from mvlm.compile.jobs.store.leases import RENEW_SECONDS, Leases


class Heartbeat:
    """Renews them every few seconds, from construction until :meth:`stop`.

    Args:
        store: The store.
        run: The run's name.
        leases: The run's.
    """

    def __init__(self, store: Store, run: str, leases: Leases) -> None:
        self._store, self._run, self._leases = store, run, leases
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            try:
                self._leases.renew()
                self._store.runs.renew(self._run)
            except StoreError:  # the next renewal may reach it; leases last for several
                continue
