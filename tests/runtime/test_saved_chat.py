"""A saved conversation goes on as if it had not been interrupted, and bad files are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mvlm.runtime.chat import Chat
from mvlm.runtime.engine import EngineSettings
from mvlm.runtime.errors import UsageError
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from tests.artifacts import ArtifactCache

SHORT = SamplingParams(max_tokens=12)
MAGIC = b"mvlm conversation 1\n"


@pytest.fixture(scope="module")
def model(artifact_cache: ArtifactCache) -> Model:
    return Model(artifact_cache.artifact("ldpnet"))


def pixels(model: Model, seed: int) -> npt.NDArray[np.float32]:
    assert model.settings.image is not None
    size = model.settings.image.size
    return np.random.default_rng(seed).standard_normal((1, 3, size, size), np.float32)


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    chat = Chat(model)
    _ = chat.generate("What is this?", [pixels(model, 0), pixels(model, 1)], SHORT).completion
    _ = chat.generate("And that?", [pixels(model, 2)], SHORT).completion
    path = tmp_path / "saved"
    chat.save(path)
    return path


def test_it_goes_on_with_the_same_tokens_and_computes_the_question_only(
    model: Model, saved: Path
) -> None:
    first, second = Chat(model), Chat(model)
    for chat in (first, second):
        _ = chat.generate("What is this?", [pixels(model, 0), pixels(model, 1)], SHORT).completion
        _ = chat.generate("And that?", [pixels(model, 2)], SHORT).completion
    expected = first.generate("Why?", params=SHORT).completion

    restored = Chat(model)
    restored.load(saved)
    assert restored.turns == second.turns
    generation = restored.generate("Why?", params=SHORT)
    assert generation.completion.token_ids == expected.token_ids
    answer = generation._answer
    assert answer is not None and answer.stats.computed < 40 < answer.stats.prompt


def test_a_pool_without_room_computes_the_positions_anew(model: Model, saved: Path) -> None:
    whole = Chat(model)
    whole.load(saved)
    expected = whole.generate("Why?", params=SHORT).completion.token_ids
    full = Chat(model, settings=EngineSettings())
    held = [full.engine.pool.allocate() for _ in range(full.engine.pool.size)]
    full.load(saved)
    for page in held:
        full.engine.pool.release(page)
    generation = full.generate("Why?", params=SHORT)
    assert generation.completion.token_ids == expected


def test_an_empty_conversation_can_be_saved(model: Model, tmp_path: Path) -> None:
    chat = Chat(model)
    chat.save(tmp_path / "saved")
    chat.load(tmp_path / "saved")
    assert chat.turns == ()


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    start = len(MAGIC) + 8
    length = int.from_bytes(data[len(MAGIC) : start], "little")
    return json.loads(data[start : start + length]), data[start + length :]


def joined(header: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return MAGIC + len(text).to_bytes(8, "little") + text + payload


def with_header(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        header, payload = split(data)
        change(header)
        return joined(header, payload)

    return changed


def flipped(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


def with_key(key: object) -> Callable[[bytes], bytes]:
    def change(header: dict[str, Any]) -> None:
        header["keys"][0] = key

    return with_header(change)


def with_turn(**values: object) -> Callable[[bytes], bytes]:
    return with_header(lambda header: header["turns"][0].update(values))


FAULTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "no saved conversation"),
    "another file": (lambda data: b"\x89PNG" + data, "no saved conversation"),
    "a long header": (lambda data: MAGIC + b"\xff" * 8, "no saved conversation"),
    "a cut header": (lambda data: data[:100], "damaged"),
    "cut pages": (lambda data: data[:-1], "damaged"),
    "more behind": (lambda data: data + b"x", "damaged"),
    "a flipped bit": (flipped, "another sha256"),
    "no JSON": (lambda data: data.replace(b'{"artifact"', b'["artifact"', 1), "JSON"),
    "another artifact": (with_header(lambda h: h.update(artifact="0" * 64)), "another artifact"),
    "no artifact": (with_header(lambda h: h.pop("artifact")), "artifact"),
    "a key outside": (with_key(1 << 40), "the position"),
    "a negative key": (with_key(-200), "the position"),
    "a key that is a bool": (with_key(True), "the position"),
    "a key of no image": (with_key([9, 0]), "the position"),
    "a row of no image": (with_key([0, 1 << 20]), "the position"),
    "a key that is text": (with_key("x"), "the position"),
    "many keys": (with_header(lambda h: h.update(keys=[1] * 100_000)), "damaged"),
    "keys that are none": (with_header(lambda h: h.update(keys={})), "keys"),
    "many images": (with_turn(images=1 << 40), "damaged"),
    "negative images": (with_turn(images=-1), "damaged"),
    "an image more": (with_turn(images=3), "damaged"),
    "inherited images": (with_turn(inherited_images=7), "inherited"),
    "no answer": (with_turn(answer=None), "answer"),
    "a blank question": (with_turn(question=" "), "damaged"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file_is_refused_and_the_conversation_stays(
    model: Model, saved: Path, name: str
) -> None:
    change, message = FAULTS[name]
    saved.write_bytes(change(saved.read_bytes()))
    chat = Chat(model)
    _ = chat.generate("Who?", params=SHORT).completion
    before, pages = chat.turns, chat.engine.prefixes.pages
    with pytest.raises(UsageError, match=message):
        chat.load(saved)
    assert chat.turns == before and chat.engine.prefixes.pages == pages
    assert chat.engine.pool.free + pages == chat.engine.pool.size


def test_the_digest_is_of_all_bytes_behind_the_header(saved: Path) -> None:
    header, payload = split(saved.read_bytes())
    assert header["sha256"] == hashlib.sha256(payload).hexdigest()


def test_files_that_cannot_be_read_or_written(model: Model, tmp_path: Path) -> None:
    chat = Chat(model)
    with pytest.raises(UsageError, match="cannot read"):
        chat.load(tmp_path / "none")
    with pytest.raises(UsageError, match="cannot read"):
        chat.load(tmp_path)
    with pytest.raises(UsageError, match="cannot write"):
        chat.save(tmp_path / "none" / "saved")


def test_the_system_message_is_saved(model: Model, tmp_path: Path) -> None:
    chat, other = Chat(model), Chat(model)
    chat.set_system("Be brief.")
    _ = chat.generate("What is this?", [pixels(model, 0)], SHORT).completion
    chat.save(tmp_path / "saved")
    other.load(tmp_path / "saved")
    assert (other.system, other.turns) == ("Be brief.", chat.turns)
    np.testing.assert_array_equal(other.images[0][0], pixels(model, 0))
    other.undo()
    assert other.turns == ()


def test_a_file_of_before_there_were_system_messages(model: Model, saved: Path) -> None:
    saved.write_bytes(with_header(lambda header: header.pop("system"))(saved.read_bytes()))
    chat = Chat(model)
    chat.set_system("Be brief.")
    chat.load(saved)
    assert chat.system is None and len(chat.turns) == 2
