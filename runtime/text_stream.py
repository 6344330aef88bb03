"""Tokens of an answer to text, as it becomes final.

What a user has seen cannot be taken back, so text is shown only when it is final: not half a
character, not what may turn out to be the beginning of a stop string, not white space that may turn
out to be the answer's end. The work for a token does not grow with the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from mvlm.runtime.errors import UsageError
from mvlm.runtime.tokenizer import Detokenizer, Tokenizer


class TextStream:
    """Turns the ids of one answer into text to show.

    The concatenation of what :meth:`push` and :meth:`finish` return is the text of all ids, cut
    before the first stop string, and without white space at either end unless it is `verbatim`. Of
    several stop strings the one that is complete first counts; of those complete at the same
    character, the longest.

    Args:
        tokenizer: The model's tokenizer. Special ids have no text: the caller ends the answer at
            the end-of-sequence id.
        stop: Texts that end the answer; they are not shown.
        verbatim: Whether the text goes on from a prompt as it is, white space at either end
            included.

    Raises:
        UsageError: A stop string is empty.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), *, verbatim: bool = False
    ) -> None:
        if "" in stop:
            raise UsageError("stop", expected="texts that are not empty", found=repr(tuple(stop)))
        self._verbatim = verbatim
        self._detokenizer = Detokenizer(tokenizer, at_start=not verbatim)
        self._matchers = [_Matcher(text) for text in dict.fromkeys(stop)]
        # Decoded and not shown: what may begin a stop string.
        self._held = ""
        # Decoded and not shown: white space after the text shown, in parts.
        self._blanks: list[str] = []
        self._shown: list[str] = []
        self._finished = False
        self._stopped_by: str | None = None

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended the answer, if one did."""
        return self._stopped_by

    @property
    def text(self) -> str:
        """All that was shown so far."""
        return "".join(self._shown)

    def push(self, token_id: int) -> str:
        """Take the next id and return the text that can be shown now.

        After a stop string, or after :meth:`finish`, ids are passed over.

        Raises:
            TokenizerError: The id is negative.
        """
        if self._finished:
            return ""
        return self._take(self._detokenizer.push(token_id))

    def finish(self) -> str:
        """End the answer and return the text that was held back."""
        if self._finished:
            return ""
        shown = self._take(self._detokenizer.finish())
        if not self._finished:
            self._finished = True
            last = self._show(self._held)
            self._held = ""
            shown += last
        return shown

    def _take(self, text: str) -> str:
        held = self._held + text
        for end, character in enumerate(text, start=len(self._held) + 1):
            # All matchers see every character, so that none lags behind.
            complete = [matcher for matcher in self._matchers if matcher.push(character)]
            if complete:
                longest = max(complete, key=lambda matcher: len(matcher.text))
                self._stopped_by = longest.text
                self._finished = True
                self._held = ""
                return self._show(held[: end - len(longest.text)])
        begun = max((matcher.matched for matcher in self._matchers), default=0)
        settled = len(held) - begun
        self._held = held[settled:]
        return self._show(held[:settled])

    def _show(self, text: str) -> str:
        """Show text that no stop string can take back, but for white space at its end."""
        if self._verbatim:
            self._shown.append(text)
            return text
        if not self._shown:
            text = text.lstrip()
        visible = text.rstrip()
        if not visible:
            # Kept in parts: joining them for each token would be quadratic in a run of blanks.
            if text:
                self._blanks.append(text)
            return ""
        shown = "".join([*self._blanks, visible])
        trailing = text[len(visible) :]
        self._blanks = [trailing] if trailing else []
        self._shown.append(shown)
        return shown


class _Matcher:
    """Knuth-Morris-Pratt search for one text in a stream of characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        """How many of the last characters are the beginning of the text, at most."""
        self._fallback = _borders(text)

    def push(self, character: str) -> bool:
        """Take a character and say whether it completes the text."""
        while self.matched and self.text[self.matched] != character:
            self.matched = self._fallback[self.matched - 1]
        if self.text[self.matched] == character:
            self.matched += 1
        return self.matched == len(self.text)


def _borders(text: str) -> list[int]:
    """For each beginning of `text`, the length of its longest other beginning that ends it."""
    borders = [0]
    for character in text[1:]:
        length = borders[-1]
        while length and text[length] != character:
            length = borders[length - 1]
        borders.append(length + 1 if text[length] == character else 0)
    return borders
