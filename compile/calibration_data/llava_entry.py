r"""An entry of LLaVA's format: a conversation, and the names of its images.

.. code-block:: json

    {"id": "1", "image": "coco/1.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is this?"},
        {"from": "gpt", "value": "A bus."}]}

So are the data of LLaVA-1.5, ShareGPT4V and MobileVLM. ``image`` may be absent, or a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mvlm.compile.calibration_data.skipped import UnusableEntryError
from mvlm.runtime.errors import PromptError, UsageError
from mvlm.runtime.template import IMAGE_PLACEHOLDER, Turn

MAX_IMAGES = 8
"""Entries with more images are passed over."""

_IS_QUESTION = {"human": True, "user": True, "gpt": False, "assistant": False}
_KEYS = ("id", "image", "conversations")
_TURN_KEYS = ("from", "value")
# Keys of other formats that belong to the prompt. An entry with one of them is not what it seems.
_PROMPT_KEYS = ("images", "video", "videos", "audio", "audios", "system", "tools")
# Keys of published data sets that say where an entry comes from.
_NOTES = ("model", "source", "dataset", "width", "height")


@dataclass(frozen=True)
class LlavaEntry:
    """A conversation.

    Attributes:
        turns: At least one; all but the last have an answer.
        images: Names of the turns' images, in their order.
        unknown_keys: Keys that are passed over and that no published data set has.
    """

    turns: tuple[Turn, ...]
    images: tuple[str, ...]
    unknown_keys: tuple[str, ...]


def parse_entry(values: object, name: str) -> LlavaEntry:
    """Read an entry.

    As in LLaVA's training, what the assistant says before the first question is dropped, and an
    image stands in front of the question that names it. Where a question names several images, they
    stay where they are named; where none is named, they stand in front of the first question.

    Args:
        values: The entry, as JSON has it.
        name: How messages call it.

    Raises:
        UsageError: It is not in LLaVA's format.
        UnusableEntryError: It is, but no prompt can be made of it.
    """
    entry = _object(values, name)
    conversation = entry.get("conversations")
    if not isinstance(conversation, list):
        raise _wrong(name, "conversations", "a list of turns", entry.get("conversations"))
    said = [_said(turn, f"{name}: conversations[{i}]") for i, turn in enumerate(conversation)]
    for key in _PROMPT_KEYS:
        if key in entry:
            raise UnusableEntryError(f"with the key {key!r}, which is not understood", name)
    unknown = {key for key in entry if key not in _KEYS + _NOTES}
    unknown |= {key for turn in conversation for key in turn if key not in _TURN_KEYS}
    images = _image_names(entry.get("image"), name)
    turns = _turns(_exchanges(said, name), len(images), name)
    return LlavaEntry(turns, images, tuple(sorted(unknown)))


def _said(values: object, name: str) -> tuple[str, str]:
    """Return who says what in a turn."""
    turn = _object(values, name)
    for key in _TURN_KEYS:
        if not isinstance(turn.get(key), str):
            raise _wrong(name, key, "a text", turn.get(key))
    return turn["from"], turn["value"]


def _exchanges(said: Sequence[tuple[str, str]], name: str) -> list[tuple[str, str | None]]:
    """Return questions with their answers; the last may have none."""
    for role, _ in said:
        if role not in _IS_QUESTION:
            raise UnusableEntryError("with an unknown role", f"{name}: {role!r:.40}")
    begin = next((i for i, (role, _) in enumerate(said) if _IS_QUESTION[role]), len(said))
    turns = said[begin:]
    if not turns:
        raise UnusableEntryError("without a question", name)
    if any(_IS_QUESTION[role] != (i % 2 == 0) for i, (role, _) in enumerate(turns)):
        raise UnusableEntryError("in which question and answer do not alternate", name)
    texts: list[str | None] = [text for _, text in turns]
    texts += [None] * (len(texts) % 2)
    return [(str(texts[i]), texts[i + 1]) for i in range(0, len(texts), 2)]


def _turns(exchanges: Sequence[tuple[str, str | None]], images: int, name: str) -> tuple[Turn, ...]:
    """Give each question the images that it names."""
    named = [question.count(IMAGE_PLACEHOLDER) for question, _ in exchanges]
    if not any(named):
        named[0] = images
    if sum(named) != images:
        found = f"with {sum(named)} {IMAGE_PLACEHOLDER} for {images} image"
        raise UnusableEntryError(found + "s" * (images != 1), name)
    turns = []
    for (question, answer), count in zip(exchanges, named, strict=True):
        text = question.replace(IMAGE_PLACEHOLDER, "").strip() if count == 1 else question
        try:
            turns.append(Turn(text, count, answer))
        except PromptError:
            raise UnusableEntryError("with an empty question", name) from None
    return tuple(turns)


def _image_names(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in names):
        raise _wrong(name, "image", "a file's name, or a list of names", value)
    if len(names) > MAX_IMAGES:
        raise UnusableEntryError(f"with more than {MAX_IMAGES} images", name)
    return tuple(names)


def _object(values: object, name: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise _wrong(name, None, "an object", values)
    return values


def _wrong(name: str, key: str | None, expected: str, found: object) -> UsageError:
    place = name if key is None else f"{name}: key {key!r}"
    return UsageError(
        f"{place} is wrong",
        expected=expected,
        found="nothing" if found is None else f"{type(found).__name__} {found!r:.60}",
        fix='LLaVA\'s format is {"id", "image", "conversations": [{"from", "value"}]}.',
    )
