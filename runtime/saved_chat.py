"""A conversation in a file: its turns and images, and what the KV cache holds of it.

The file is one line of text, the length of a JSON object (8 bytes, little-endian), the object, and
the bytes of images and pages behind it. The object holds the artifact's digest, the system message
if it is not the template's own, the turns, the shape of the images, the keys of the cached
positions, and the sha256 of the bytes behind it.

A file from outside is not trusted: sizes are checked before anything is read, each key against the
vocabulary and the file's own images, and all bytes against their digest. Keys and values of
positions are numbers that no check can judge; they can make an answer wrong, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mvlm.runtime.artifact.json_object import JsonObject, parse_json_object
from mvlm.runtime.atomic_write import atomic_write
from mvlm.runtime.engine import Engine
from mvlm.runtime.engine.image_encoder import image_digest
from mvlm.runtime.engine.positions import position_keys
from mvlm.runtime.engine.saved_prefix import SavedPrefix, read_prefix, restore_prefix
from mvlm.runtime.engine.sequence import PositionKey
from mvlm.runtime.errors import ArtifactError, MvlmError, UsageError
from mvlm.runtime.model import FloatArray
from mvlm.runtime.template import Turn

_MAGIC = b"mvlm conversation 1\n"
_MAX_HEADER = 32 << 20
_MAX_IMAGES = 256


@dataclass(frozen=True)
class SavedTurn:
    """A turn, and the pixels of its images."""

    turn: Turn
    pixels: tuple[FloatArray, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class SavedConversation:
    """The turns of a conversation, and the text that opens it; None for the template's own."""

    turns: Sequence[SavedTurn]
    system: str | None = None


def save_conversation(
    path: Path, engine: Engine, conversation: SavedConversation, ids: Sequence[int]
) -> None:
    """Write a conversation, whole or not at all.

    Args:
        path: The file; it is replaced.
        engine: Which computed it.
        conversation: Its turns have their images.
        ids: All of it as a prompt, an image as -200; those of its positions that the prefix cache
            holds are saved.

    Raises:
        UsageError: The file cannot be written.
    """
    turns = conversation.turns
    images = [pixels for turn in turns for pixels in turn.pixels]
    digests = list(map(image_digest, images))
    numbers = {digest: number for number, digest in enumerate(digests)}
    prefix = read_prefix(engine, position_keys(ids, digests, engine.model.settings.image_tokens))
    payload = [*(pixels.tobytes() for pixels in images), *prefix.pages]
    digest = hashlib.sha256()
    for part in payload:
        digest.update(part)
    header = {
        "artifact": engine.model.manifest.digest,
        "system": conversation.system,
        "turns": [_turn_to_json(turn) for turn in turns],
        "keys": [key if isinstance(key, int) else [numbers[key[0]], key[1]] for key in prefix.keys],
        "sha256": digest.hexdigest(),
    }
    text = json.dumps(header).encode()
    try:
        with atomic_write(path) as file:
            file.write(_MAGIC + len(text).to_bytes(8, "little") + text)
            for part in payload:
                file.write(part)
    except OSError as error:
        raise UsageError(f"cannot write {path}", found=error.strerror) from None


def load_conversation(path: Path, engine: Engine) -> SavedConversation:
    """Read a conversation, and put what it holds of the KV cache into the prefix cache.

    Raises:
        UsageError: The file cannot be read, is no conversation, is damaged, or belongs to another
            artifact. The engine is as it was then.
    """
    try:
        with path.open("rb") as file:
            return _load(path, file, engine)
    except OSError as error:
        raise UsageError(f"cannot read {path}", found=error.strerror) from None
    except ArtifactError as error:
        raise UsageError(str(error)) from None


def _load(path: Path, file: BinaryIO, engine: Engine) -> SavedConversation:
    header, begin = _read_header(path, file)
    artifact = engine.model.manifest.digest
    if (found := header.get("artifact", str)) != artifact:
        raise UsageError(
            f"{path} is a conversation with another artifact",
            expected=f"the digest {artifact[:16]}",
            found=f"{found:.16}",
            fix="Load it into a chat with the artifact that it was saved from.",
        )
    spec = engine.model.settings.image
    entries = header.children("turns")
    counts = [entry.get("images", int) for entry in entries]
    count = sum(counts)
    shape = (1, 3, spec.size, spec.size) if spec is not None else (0,)
    image_bytes = int(np.prod(shape)) * 4
    keys: list[Any] = header.get("keys", list)
    page_size = engine.model.settings.cache.page_size
    pages, page_bytes = -(-len(keys) // page_size), engine.model.settings.cache.nbytes(page_size)
    expected = begin + count * image_bytes + pages * page_bytes
    is_sound = min(counts, default=0) >= 0 and count <= _MAX_IMAGES and pages <= engine.pool.size
    if not is_sound or os.fstat(file.fileno()).st_size != expected:
        raise _damaged(path, f"{count} images and {len(keys)} positions in another number of bytes")
    digest = hashlib.sha256()

    def read(length: int) -> bytes:
        part = file.read(length)
        digest.update(part)
        return part

    images = [np.frombuffer(read(image_bytes), np.float32).reshape(shape) for _ in range(count)]
    content = tuple(read(page_bytes) for _ in range(pages))
    if digest.hexdigest() != header.get("sha256", str):
        raise _damaged(path, "another sha256")
    saved = SavedConversation(
        _turns_from_json(path, entries, images), header.optional("system", str)
    )
    digests = [image_digest(pixels) for pixels in images]
    prefix = SavedPrefix(tuple(_key(path, key, digests, engine) for key in keys), content)
    restore_prefix(engine, prefix)
    return saved


def _read_header(path: Path, file: BinaryIO) -> tuple[JsonObject, int]:
    start = file.read(len(_MAGIC) + 8)
    length = int.from_bytes(start[len(_MAGIC) :], "little")
    if not start.startswith(_MAGIC) or length > _MAX_HEADER:
        raise UsageError(f"{path} is no saved conversation", expected="a file that /save wrote")
    text = file.read(length)
    if len(text) != length:
        raise _damaged(path, "a file that is cut short")
    return parse_json_object(text, str(path)), len(start) + length


def _turn_to_json(saved: SavedTurn) -> dict[str, Any]:
    turn = saved.turn
    return {
        "question": turn.question,
        "images": turn.images,
        "answer": turn.answer,
        "inherited_images": turn.inherited_images,
    }


def _turns_from_json(
    path: Path, entries: Sequence[JsonObject], images: Sequence[FloatArray]
) -> list[SavedTurn]:
    turns, shown = [], iter(images)
    for entry in entries:
        count, inherited = entry.get("images", int), entry.get("inherited_images", int)
        if not 0 <= inherited <= count:
            raise _damaged(path, f"{inherited} inherited images of {count}")
        try:
            turn = Turn(entry.get("question", str), count, entry.get("answer", str), inherited)
        except MvlmError as error:
            raise _damaged(path, str(error)) from None
        turns.append(SavedTurn(turn, tuple(next(shown) for _ in range(count))))
    return turns


def _key(path: Path, key: Any, digests: Sequence[bytes], engine: Engine) -> PositionKey:
    settings = engine.model.settings
    if type(key) is int and 0 <= key < settings.vocabulary:
        return key
    if isinstance(key, list) and len(key) == 2 and all(type(each) is int for each in key):
        image, row = key
        if 0 <= image < len(digests) and 0 <= row < settings.image_tokens:
            return digests[image], row
    raise _damaged(path, f"the position {key!r:.40}")


def _damaged(path: Path, found: str) -> UsageError:
    return UsageError(
        f"{path} is damaged", expected="what /save wrote", found=found, fix="Save it again."
    )
