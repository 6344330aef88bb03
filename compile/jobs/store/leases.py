"""Leases: which run works on a step, so that two runs share the work and do nothing twice.

A lease is a file ``leases/KEY.N.json`` that was created exclusively; the highest N is valid. Its
owner renews it every few seconds by writing it again. Another run that finds it unchanged for
longer than it expires, by that run's own clock, or that finds the owner's process gone, creates
N + 1, which only one run can. So no clocks are compared, and no run removes another run's lease.

Leases save work and are no locks: two runs that do the same step at once write the same result.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mvlm.compile.jobs.errors import StoreError
from mvlm.compile.jobs.process import Process, read_process, this_process
from mvlm.compile.jobs.store.files import Files
from mvlm.runtime.artifact.json_object import JsonObject, parse_json_object
from mvlm.runtime.errors import ArtifactError

RENEW_SECONDS = 5.0
# Several renewals may be late: a store that is slow, a machine that is busy.
EXPIRY_SECONDS = 45.0
_MAX_BYTES = 1 << 14
_MAX_DIGITS = 9


@dataclass(frozen=True)
class _Observation:
    """The content of another run's lease, and when it was first read."""

    content: bytes
    since: float


class Leases:
    """The leases of one run.

    Args:
        files: The store's.
        run: The run's name.
        expiry: Seconds after which a lease that is not renewed is taken over.
        clock: Of this machine alone; it only has to go on.
    """

    def __init__(
        self,
        files: Files,
        run: str,
        expiry: float = EXPIRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files, self._run, self._expiry, self._clock = files, run, expiry, clock
        self._owned: dict[str, int] = {}
        self._observed: dict[str, _Observation] = {}
        self._lock = threading.Lock()
        self._renewals = 0

    def acquire(self, key: str) -> bool:
        """Lease a step; False where another run works on it."""
        number = self._next(key)
        if number is None or not self._files.create(_name(key, number), self._content()):
            return False
        with self._lock:
            self._owned[key] = number
        return True

    def owner(self, key: str) -> str:
        """Return which run, on which machine, works on a step that could not be leased."""
        observed = self._observed.get(key)
        try:
            document = parse_json_object(observed.content if observed else b"", "lease")
            return f"{document.get('run', str)[:80]} on {_owner(document).host}"
        except ArtifactError:
            return "another run"

    def release(self, key: str) -> None:
        """Give a lease back, and with it the expired ones that it took over."""
        with self._lock:
            number = self._owned.pop(key, None)
        if number is not None:
            for lower in sorted(n for n in self._numbers(key) if n <= number):
                self._files.remove(_name(key, lower))

    def release_all(self) -> None:
        """Give all leases back; those that a failing store keeps expire."""
        for key in list(self._owned):
            try:
                self.release(key)
            except StoreError:
                continue

    def renew(self) -> None:
        """Renew all leases of this run."""
        self._renewals += 1
        content = self._content()
        with self._lock:
            for key, number in self._owned.items():
                self._files.write(_name(key, number), content)

    def _next(self, key: str) -> int | None:
        """Return the number of the lease to create; None where a valid one exists."""
        numbers = self._numbers(key)
        if not numbers:
            return 0
        content = self._files.read(_name(key, numbers[-1]), _MAX_BYTES)
        if content is None or not self._is_expired(key, content):
            return None
        return numbers[-1] + 1

    def _numbers(self, key: str) -> list[int]:
        parts = (name.split(".") for name in self._files.names("leases"))
        numbers = (part[1] for part in parts if part[0] == key and len(part) == 3)
        return sorted(int(n) for n in numbers if n.isdecimal() and len(n) <= _MAX_DIGITS)

    def _is_expired(self, key: str, content: bytes) -> bool:
        now, observed = self._clock(), self._observed.get(key)
        if observed is None or observed.content != content:
            self._observed[key] = observed = _Observation(content, now)
        try:
            if _owner(parse_json_object(content, "lease")).is_gone:
                return True
        except ArtifactError:  # its owner may be alive all the same
            pass
        return now - observed.since > self._expiry

    def _content(self) -> bytes:
        owner = this_process().to_json()
        return json.dumps({"run": self._run, "owner": owner, "renewals": self._renewals}).encode()


class Heartbeat:
    """A thread that renews leases every few seconds, from construction until :meth:`stop`.

    Args:
        leases: The leases of a run.
        renew_run: Called as well each time: it renews the run itself.
    """

    def __init__(self, leases: Leases, renew_run: Callable[[], None]) -> None:
        self._leases, self._renew_run = leases, renew_run
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
                self._renew_run()
            except StoreError:  # the next renewal may reach it; leases last for several
                continue


def _name(key: str, number: int) -> str:
    return f"leases/{key}.{number}.json"


def _owner(document: JsonObject) -> Process:
    return read_process(document.child("owner"))
