"""A conversation about images: its history, and truncation at the context's end.

The policy at the limit: an answer that reaches the end of the context stops there, with the finish
reason ``length``. When a conversation no longer fits, its oldest turns are dropped, one after the
other. Their images move to the next turn, as long as these fit themselves, since the conversation
is about them; :attr:`Generation.dropped_turns` counts the dropped turns. A single prompt that does
not fit is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from mvlm.runtime.engine import Answer, Engine, EngineSettings, Request, Trace
from mvlm.runtime.engine.sequence import common_prefix
from mvlm.runtime.errors import ContextError, PromptError
from mvlm.runtime.generation import Generation
from mvlm.runtime.model import FloatArray, Model
from mvlm.runtime.processor import Processor
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.saved_chat import (
    SavedConversation,
    SavedTurn,
    load_conversation,
    save_conversation,
)
from mvlm.runtime.structured_output import Constraint
from mvlm.runtime.template import Turn
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID

# Two questions that have nothing in common: prompts with them begin as every other one does.
_ANY_QUESTIONS = ("a", "Z")
# Positions that a prompt must leave for its answer; older turns are dropped to free them.
_MIN_ANSWER_TOKENS = 64


@dataclass
class _Exchange:
    """A turn of the conversation and the pixels of its images: first the inherited ones."""

    turn: Turn
    pixels: tuple[FloatArray, ...] = field(default=(), repr=False)

    @property
    def own_pixels(self) -> tuple[FloatArray, ...]:
        """Those of the images that were given with the turn."""
        return self.pixels[self.turn.inherited_images :]

    def answered(self, text: str) -> _Exchange:
        """Return the exchange with its answer."""
        return replace(self, turn=replace(self.turn, answer=text))


class Chat:
    """A conversation with one model.

    Args:
        model: The loaded artifact.
        template: Name of the chat template; the artifact's own if None.
        engine: Computes the answers; conversations may share it. One of its own if None.
        settings: Of its own engine.

    Raises:
        UsageError: There is no such template, or a setting is out of its range.
        ArtifactError: The artifact names a template that does not exist.
        TokenizerError: The artifact's tokenizer is damaged.
    """

    def __init__(
        self,
        model: Model,
        template: str | None = None,
        engine: Engine | None = None,
        settings: EngineSettings | None = None,
    ) -> None:
        self.model = model
        self.engine = engine or Engine(model, settings)
        self._processor = Processor(model, template)
        self.template, self.tokenizer = self._processor.template, self._processor.tokenizer
        self._own_system = self.template.system
        self._history: list[_Exchange] = []
        # The conversation before each turn, with the turns that were dropped since.
        self._earlier: list[tuple[_Exchange, ...]] = []
        self._active: Generation | None = None
        self._ahead: Answer | None = None

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation so far, without the turns that were dropped."""
        return tuple(exchange.turn for exchange in self._history)

    @property
    def images(self) -> tuple[tuple[FloatArray, ...], ...]:
        """The pixels that were given with each of the turns; inherited ones are not."""
        return tuple(exchange.own_pixels for exchange in self._history)

    @property
    def system(self) -> str | None:
        """The text that opens the conversation; None for the template's own."""
        return None if self.template.system == self._own_system else self.template.system

    def set_system(self, text: str | None) -> None:
        """Open the conversation, as far as it has come, with another text.

        Args:
            text: The text; the template's own if None.

        Raises:
            PromptError: The template is for prompts without turns.
        """
        if text is not None and not self.template.has_turns:
            raise PromptError(f"the template {self.template.name} has no system message")
        self._cancel()
        self.template = replace(self.template, system=self._own_system if text is None else text)

    def generate(
        self,
        question: str,
        pixels: Sequence[FloatArray] = (),
        params: SamplingParams | None = None,
        trace: Trace | None = None,
        *,
        constraint: Constraint | None = None,
        replace_last: bool = False,
    ) -> Generation:
        """Answer the next question; nothing is computed before the generation is iterated.

        An unfinished generation before it is cancelled.

        Args:
            question: The user's text.
            pixels: Preprocessed images ``(1, 3, S, S)`` shown with it.
            params: How to sample; greedily if None.
            trace: Records every stage.
            constraint: The form of the answer; any if None.
            replace_last: Whether the question takes the last turn's place, which stays until the
                answer is complete.

        Raises:
            PromptError: The question is blank, its images do not match its text, or there is no
                turn to replace.
            ContextError: The question alone does not fit into the context.
            ConstraintError: The form is not understood, or too complex.
        """
        params = params or SamplingParams()
        earlier = self._earlier if self.template.has_turns or replace_last else []
        history: Sequence[_Exchange] = self._history
        if replace_last:
            self._require_turn()
            *earlier, history = earlier
        exchanges = self._exchanges(question, pixels, history)
        kept, ids = self._fit(exchanges, params.max_tokens)
        shown = [each for exchange in kept for each in exchange.pixels]
        limited = self._within_context(params, ids)
        request = self._processor.request(ids, shown, limited, constraint, trace)
        self._cancel()

        def finished(text: str) -> None:
            if self._active is generation:
                self._active = None
                self._earlier = [*earlier, tuple(exchanges[:-1])]
                self._history = [*kept[:-1], kept[-1].answered(text)]

        generation = Generation(
            self.engine,
            request,
            self._processor.stream(params),
            finished,
            dropped_turns=len(exchanges) - len(kept),
        )
        self._active = generation
        return generation

    def retry(
        self, params: SamplingParams | None = None, constraint: Constraint | None = None
    ) -> Generation:
        """Answer the last question again; see `replace_last` of :meth:`generate`.

        The prompt is in the prefix cache. Without a seed, or with another one, sampling gives
        another answer.

        Raises:
            PromptError: There is no turn.
        """
        self._require_turn()
        last = self._history[-1]
        return self.generate(
            last.turn.question, last.own_pixels, params, constraint=constraint, replace_last=True
        )

    def undo(self) -> Turn:
        """Take back the last turn, and return it; turns that were dropped for it come back.

        Raises:
            PromptError: There is none.
        """
        self._require_turn()
        self._cancel()
        turn = self._history[-1].turn
        self._history = list(self._earlier.pop())
        return turn

    def _require_turn(self) -> None:
        if not self._history:
            raise PromptError("there is no turn yet", expected="a question that was answered")

    def read_ahead(self, pixels: Sequence[FloatArray] = ()) -> None:
        """Ask the engine to compute what is known of the next prompt, before there is a question.

        That is the conversation so far, and the images. It costs nothing that the question would
        not: :meth:`generate` takes over what is computed by then.

        Args:
            pixels: Preprocessed images ``(1, 3, S, S)`` that are to be shown with the question.
        """
        if self._ahead is not None:
            self._ahead.cancel()
            self._ahead = None
        with suppress(PromptError):  # it is the question's matter to say what is wrong
            prompts = [
                self._fit(self._exchanges(text, pixels, self._history), 1)
                for text in _ANY_QUESTIONS
            ]
            (_, ids), (_, other) = prompts
            ids = ids[: common_prefix(ids, other)]
            shown = [each for exchange in prompts[0][0] for each in exchange.pixels]
            places = ids.count(IMAGE_TOKEN_ID)
            if len(ids) > 1:
                self._ahead = self.engine.read_ahead(Request(ids, shown[:places]))

    def _exchanges(
        self, question: str, pixels: Sequence[FloatArray], history: Sequence[_Exchange]
    ) -> list[_Exchange]:
        """Return a conversation with one more question."""
        before = history if self.template.has_turns else []
        return [*before, _Exchange(Turn(question, len(pixels)), tuple(pixels))]

    def save(self, path: Path) -> None:
        """Write the conversation to a file, with what the KV cache holds of it.

        Raises:
            UsageError: The file cannot be written.
        """
        turns = [SavedTurn(exchange.turn, exchange.pixels) for exchange in self._history]
        ids = self.tokenizer.encode_prompt(self.template.render(self.turns)) if turns else ()
        save_conversation(path, self.engine, SavedConversation(turns, self.system), ids)

    def load(self, path: Path) -> None:
        """Go on with a conversation from a file, in the place of this one.

        Raises:
            UsageError: The file cannot be read, is no conversation, is damaged, or belongs to
                another artifact; the conversation is as it was then.
        """
        saved = load_conversation(path, self.engine)
        self._cancel()
        own = self._own_system
        self.template = replace(self.template, system=own if saved.system is None else saved.system)
        self._history = [_Exchange(each.turn, each.pixels) for each in saved.turns]
        self._earlier = [tuple(self._history[:count]) for count in range(len(self._history))]

    def reset(self) -> None:
        """Begin a new conversation; an unfinished generation is cancelled."""
        self._cancel()
        self._history.clear()
        self._earlier.clear()

    def _cancel(self) -> None:
        """Cancel an unfinished generation: the conversation goes on without it."""
        if self._active is not None:
            self._active.cancel()
            self._active = None

    def _within_context(self, params: SamplingParams, ids: Sequence[int]) -> SamplingParams:
        free = self.engine.context - self.engine.length(ids)
        return replace(params, max_tokens=min(params.max_tokens, free))

    def _fit(
        self, exchanges: Sequence[_Exchange], max_tokens: int
    ) -> tuple[list[_Exchange], list[int]]:
        """Drop the oldest turns until the rest leaves room for an answer."""
        capacity = self.engine.context
        room = min(max_tokens, _MIN_ANSWER_TOKENS, capacity // 4)
        kept = list(exchanges)
        while True:
            turns = [exchange.turn for exchange in kept]
            ids = self.tokenizer.encode_prompt(self.template.render(turns))
            length = self.engine.length(ids)
            if length + room <= capacity or (len(kept) == 1 and length < capacity):
                return kept, ids
            if len(kept) > 1:
                kept = _without_oldest(kept)
            elif kept[0].turn.inherited_images:
                # Of the images of dropped turns, the oldest go first.
                kept = [_inheriting(kept[0], kept[0].pixels[1:])]
            else:
                raise ContextError(
                    "the prompt does not fit into the context",
                    expected=f"fewer than {capacity} tokens",
                    found=length,
                    fix="Shorten the question, or show fewer images.",
                )


def _without_oldest(exchanges: Sequence[_Exchange]) -> list[_Exchange]:
    """Drop the first turn; its images are shown before those of the next one."""
    oldest, following, *rest = exchanges
    return [_inheriting(following, oldest.pixels + following.pixels), *rest]


def _inheriting(exchange: _Exchange, pixels: tuple[FloatArray, ...]) -> _Exchange:
    """Show other inherited images before the exchange's own, which are the last of `pixels`."""
    own = exchange.turn.images - exchange.turn.inherited_images
    turn = replace(exchange.turn, images=len(pixels), inherited_images=len(pixels) - own)
    return _Exchange(turn, pixels)
