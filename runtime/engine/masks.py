"""Which tokens may be chosen in a step, computed while the model computes their scores."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from mvlm.runtime.engine.batch import Rows
from mvlm.runtime.engine.running import Running
from mvlm.runtime.structured_output import Mask


class MaskWorker:
    """Computes the masks of answers of a given form, in a thread that starts with the first one."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, batch: Iterable[tuple[Running, Rows]]) -> None:
        """Begin with the masks of all tokens that a step chooses."""
        for running, rows in batch:
            matcher = running.origin.matcher
            if matcher is None or rows.end < len(running.positions):
                continue
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="mvlm-masks")
            running.masks = self._thread.submit(matcher.masks, rows.drafts)


def take_masks(running: Running) -> list[Mask] | None:
    """Return a sequence's masks, of its next token and behind each draft; None for no form.

    Raises:
        ConstraintError: They cannot be computed.
    """
    begun, running.masks = running.masks, None
    if begun is not None:
        return begun.result()
    matcher = running.origin.matcher
    return None if matcher is None else matcher.masks()
