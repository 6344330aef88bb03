"""Claims: who works on a step, so that two runs share the work and do nothing twice.

A claim is a file ``claims/KEY.N.json`` that was created exclusively; the highest N holds. It beats:
its owner writes it again and again. Whoever finds it unchanged for long, by his own clock, or
finds its process gone, creates N + 1, which only one can. So no clocks are compared, and nobody
removes what may have become another one's.

Claims save work and are no locks: two that do the same step at once write the same result.
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

BEAT_SECONDS = 5.0
# Several beats may be late: a store that is slow, a machine that is busy.
PATIENCE_SECONDS = 45.0
_MAX_BYTES = 1 << 14
_MAX_DIGITS = 9


@dataclass(frozen=True)
class _Seen:
    """What was read of another's claim, and when it was first read so."""

    content: bytes
    since: float


class Claims:
    """The claims of one run.

    Args:
        files: The store's.
        run: The run's name.
        patience: Seconds after which a claim that does not beat is taken over.
        clock: Of this machine alone; it only has to go on.
    """

    def __init__(
        self,
        files: Files,
        run: str,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files, self._run, self._patience, self._clock = files, run, patience, clock
        self._held: dict[str, int] = {}
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()
        self._beats = 0

    def take(self, key: str) -> bool:
        """Claim a step; False where another one works on it."""
        number = self._next(key)
        if number is None or not self._files.create(_name(key, number), self._content()):
            return False
        with self._lock:
            self._held[key] = number
        return True

    def holder(self, key: str) -> str:
        """Say who works on a step that could not be claimed."""
        seen = self._seen.get(key)
        try:
            document = parse_json_object(seen.content if seen else b"", "claim")
            return f"{document.get('run', str)[:80]} on {_owner(document).host}"
        except ArtifactError:
            return "another run"

    def release(self, key: str) -> None:
        """Give a claim back, and with it those that it took over."""
        with self._lock:
            number = self._held.pop(key, None)
        if number is not None:
            for lower in sorted(n for n in self._numbers(key) if n <= number):
                self._files.remove(_name(key, lower))

    def release_all(self) -> None:
        """Give all claims back; what a store that fails keeps is taken over in time."""
        for key in list(self._held):
            try:
                self.release(key)
            except StoreError:
                continue

    def beat(self) -> None:
        """Show that all claims are alive."""
        self._beats += 1
        content = self._content()
        with self._lock:
            for key, number in self._held.items():
                self._files.write(_name(key, number), content)

    def _next(self, key: str) -> int | None:
        """Return the number of the claim to create; None where a live one is there."""
        numbers = self._numbers(key)
        if not numbers:
            return 0
        content = self._files.read(_name(key, numbers[-1]), _MAX_BYTES)
        if content is None or not self._is_stale(key, content):
            return None
        return numbers[-1] + 1

    def _numbers(self, key: str) -> list[int]:
        parts = (name.split(".") for name in self._files.names("claims"))
        numbers = (part[1] for part in parts if part[0] == key and len(part) == 3)
        return sorted(int(n) for n in numbers if n.isdecimal() and len(n) <= _MAX_DIGITS)

    def _is_stale(self, key: str, content: bytes) -> bool:
        now, seen = self._clock(), self._seen.get(key)
        if seen is None or seen.content != content:
            self._seen[key] = seen = _Seen(content, now)
        try:
            if _owner(parse_json_object(content, "claim")).is_gone:
                return True
        except ArtifactError:  # whoever wrote that may be alive all the same
            pass
        return now - seen.since > self._patience

    def _content(self) -> bytes:
        owner = this_process().to_json()
        return json.dumps({"run": self._run, "owner": owner, "beat": self._beats}).encode()


def _name(key: str, number: int) -> str:
    return f"claims/{key}.{number}.json"


def _owner(document: JsonObject) -> Process:
    return read_process(document.child("owner"))
