"""Which tokens may follow those that were chosen."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mvlm.runtime.errors import UsageError

if TYPE_CHECKING:
    from llguidance import LLMatcher

Mask = npt.NDArray[np.bool_]
_BITS = 32


class ConstraintError(UsageError):
    """An answer's form is not understood, or too complex."""


class TokenMatcher:
    """An answer's form, and how far the answer has come.

    Masks are computed in another thread than the rest, so that each method has the matcher for
    itself.

    Args:
        matcher: llguidance's, which never raises: it has an error instead.
        vocabulary: Tokens of the model.
    """

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._lock = threading.Lock()

    def copy(self) -> TokenMatcher:
        """Return a matcher that has come as far, for another answer."""
        with self._lock:
            return TokenMatcher(self._matcher.deep_copy(), self._vocabulary)

    @property
    def is_complete(self) -> bool:
        """Whether no token can follow but the end."""
        with self._lock:
            return bool(self._matcher.is_stopped())

    def consume(self, token: int) -> None:
        """Take in the token that was chosen.

        Raises:
            ConstraintError: It was not one of those that may follow, or matching has grown too
                complex.
        """
        with self._lock:
            self._matcher.consume_token(token)
            self._check()

    def masks(self, drafts: Sequence[int] = ()) -> list[Mask]:
        """Return which tokens ``(vocabulary,)`` may follow, and which behind each draft.

        Args:
            drafts: Guessed tokens, in order. There are no masks behind one that cannot be chosen.

        Raises:
            ConstraintError: Matching has grown too complex, or no token of the vocabulary fits.
        """
        with self._lock:
            masks, taken = [self._mask()], 0
            try:
                for token in drafts:
                    if not masks[-1][token] or self._matcher.is_stopped():
                        break
                    self._matcher.consume_token(token)
                    taken += 1
                    if self._matcher.is_stopped():
                        break
                    masks.append(self._mask())
            finally:
                if taken:
                    self._matcher.rollback(taken)
            return masks

    def forced(self, most: int) -> tuple[int, ...]:
        """Return the tokens that follow in any case, up to so many."""
        with self._lock:
            return tuple(self._matcher.compute_ff_tokens()[:most])

    def fitting(self, tokens: Sequence[int]) -> int:
        """Return how many of some tokens may follow one another from here."""
        with self._lock:
            return int(self._matcher.validate_tokens(list(tokens)))

    def _mask(self) -> Mask:
        words = np.zeros(-(-self._vocabulary // _BITS), np.uint32)
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        self._check()
        # Words are little-endian on every machine that we know.
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        mask: Mask = bits[: self._vocabulary].view(np.bool_)
        if not mask.any():
            raise ConstraintError(
                "the answer's form", expected="texts that the model's tokens spell", found="none"
            )
        return mask

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintError("the answer's form", found=first_line(self._matcher.get_error()))


def first_line(error: str) -> str:
    """Return the first line of llguidance's errors, which go on with its state."""
    return error.strip().partition("\n")[0][:300]
