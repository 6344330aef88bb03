"""What the loop and the commands share: the conversation, and what comes with the next question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mvlm.cli.conversation.exchange import last_of
from mvlm.cli.repl.display import quiet_keyboard, show_reply
from mvlm.cli.shared.interrupts import first_interrupt
from mvlm.cli.shared.terminal import show_dim, warn

if TYPE_CHECKING:
    from mvlm.cli.conversation.conversation import Conversation
    from mvlm.cli.conversation.exchange import AttachedImage, Exchange
    from mvlm.runtime.sampling import SamplingParams
    from mvlm.runtime.structured_output import Constraint

_REMARKS = {"length": "the answer reached its limit", "cancelled": "cancelled"}


@dataclass
class ChatState:
    """A chat between two questions.

    Attributes:
        conversation: What answers.
        params: How answers are decoded.
        is_person: Whether a person sits at a terminal.
        can_edit: Whether a line can be given to be edited.
        plain: Whether Markdown is shown as it is.
        constraint: The form of the answers; None for any.
        images: They are shown with the next question.
        edited: The last question, which the next one replaces; None if it does not.
        stats: The speeds of the last answer.
        has_left: Whether the other side wants to leave.
    """

    conversation: Conversation
    params: SamplingParams
    is_person: bool
    can_edit: bool = False
    plain: bool = False
    constraint: Constraint | None = None
    images: list[AttachedImage] = field(default_factory=list)
    edited: str | None = None
    stats: list[tuple[str, str]] = field(default_factory=list)
    has_left: bool = False

    def note(self, text: str) -> None:
        """Tell a person what was done."""
        if self.is_person:
            show_dim(text)

    def stop_editing(self) -> None:
        """Leave the last turn as it is, after all."""
        if self.edited is not None:
            self.edited, self.images = None, []

    def last(self) -> Exchange:
        """Return the last exchange.

        Raises:
            PromptError: There is none.
        """
        return last_of(list(self.conversation.exchanges))

    def ask(
        self, question: str, images: Sequence[AttachedImage], *, replace_last: bool = False
    ) -> None:
        """Ask, and show the answer.

        Raises:
            MvlmError: The question cannot be answered.
        """
        reply = self.conversation.ask(
            question,
            images,
            self.params,
            replace_last=replace_last,
            constraint=self.constraint,
        )
        with first_interrupt(reply.cancel):
            if self.is_person:
                with quiet_keyboard():
                    show_reply(reply, plain=self.plain)
            else:
                show_reply(reply, plain=self.plain)
        self.stats = reply.speeds()
        remark = _REMARKS.get(reply.finish_reason)
        if self.is_person:
            numbers = ", ".join(f"{name} {value}" for name, value in self.stats)
            show_dim("; ".join(filter(None, (remark, numbers))))
        elif remark:
            warn(remark)
