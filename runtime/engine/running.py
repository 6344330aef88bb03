"""A sequence that is being computed: its positions, pages and sampler."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count

from mvlm.runtime.engine.positions import ImageEmbedding, Positions
from mvlm.runtime.engine.request import Answer
from mvlm.runtime.engine.sequence import PagedSequence
from mvlm.runtime.engine.speculation import Draft, Drafter
from mvlm.runtime.sampling import Sampler
from mvlm.runtime.structured_output import Mask, TokenMatcher
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID

_arrivals = count()


@dataclass(eq=False)
class Waiting:
    """An answer that has no pages: it is new, or was preempted.

    Attributes:
        answer: The answer.
        digests: Of its images.
        reads_ahead: Whether only the prompt is wanted, in the prefix cache.
        sampler: Its random state.
        matcher: Its form, and how far it has come; None for any.
        positions: Prompt and answer so far; None before its images are encoded.
        images: Those that are encoded.
        arrival: Its place among those of the same priority.
        siblings: Other answers to the same prompt, which go on from it once it is computed.
    """

    answer: Answer
    digests: tuple[bytes, ...]
    reads_ahead: bool
    sampler: Sampler
    matcher: TokenMatcher | None = None
    positions: Positions | None = None
    images: list[ImageEmbedding] = field(default_factory=list)
    arrival: int = field(default_factory=lambda: next(_arrivals))
    siblings: list[Waiting] = field(default_factory=list)

    @property
    def order(self) -> tuple[bool, int, int]:
        """Sorts by who goes first; reading ahead goes last."""
        return self.reads_ahead, -self.answer.request.priority, self.arrival


@dataclass(eq=False)
class Running:
    """A sequence that has pages.

    Attributes:
        origin: What it was before it was admitted.
        positions: Prompt and answer so far.
        sequence: Those that are computed, and their pages.
        drafter: Guesses its next tokens; None if there are no guesses.
        guess: What was guessed last, and not verified.
        masks: Which tokens this step may choose, if they are being computed.
    """

    origin: Waiting
    positions: Positions
    sequence: PagedSequence
    drafter: Drafter | None
    guess: Draft | None = None
    masks: Future[list[Mask]] | None = None

    @property
    def answer(self) -> Answer:
        """Its answer."""
        return self.origin.answer

    @property
    def left(self) -> int:
        """Positions that are not computed."""
        return len(self.positions) - len(self.sequence)

    @property
    def is_decoding(self) -> bool:
        """Whether its prompt is computed."""
        return self.left == 1

    @property
    def ends_with_image(self) -> bool:
        """Whether an image is the last that is there so far."""
        return self.positions.ids[-1] == IMAGE_TOKEN_ID

    @property
    def tokens_left(self) -> int:
        """Tokens that may still be chosen."""
        return self.answer.request.params.max_tokens - len(self.answer.tokens)
