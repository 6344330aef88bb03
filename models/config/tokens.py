"""The tokenizer's JSON files, held against `tokenizer.model`, which alone is used.

transformers keeps what it adds to a SentencePiece model in `tokenizer_config.json`,
`special_tokens_map.json` and `added_tokens.json`. Here text is only text: no prompt can spell such
a token, so that none of them may change what a prompt means.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mvlm.models.config.key_check import check_keys
from mvlm.models.config.keys import TOKENIZER
from mvlm.models.config.text import ADDED_TOKENS, TOKENIZER_CONFIG
from mvlm.models.json_config import JsonConfig, read_optional_json_config
from mvlm.runtime.errors import ConfigError
from mvlm.runtime.input_file import is_present
from mvlm.runtime.tokenizer import Tokenizer

_SPECIAL_TOKENS = "special_tokens_map.json"
_TEMPLATE = "chat_template.jinja"
_LISTS = ("additional_special_tokens", "extra_special_tokens")
# What MobileVLM's own loader adds, and what training adds to fill batches: in no prompt.
_EXPECTED = ("<im_patch>", "<im_start>", "<im_end>", "<pad>", "[PAD]", "<image>")
_LISTED = 8
_MAX_ID = 1 << 22


def check_tokenizer_files(folder: Path, tokenizer: Tokenizer | None) -> tuple[str, ...]:
    """Check what the JSON files say of tokens; return what the user should know.

    Args:
        folder: The checkpoint.
        tokenizer: Its `tokenizer.model`; only types are checked if None.

    Raises:
        ConfigError: They are not those of `tokenizer.model`, or ask for what is not supported.
    """
    config = read_optional_json_config(folder / TOKENIZER_CONFIG)
    special = read_optional_json_config(folder / _SPECIAL_TOKENS)
    warnings = check_keys(config, TOKENIZER, TOKENIZER_CONFIG)
    for document in (config, special):
        _check_special(document, tokenizer)
    if "chat_template" not in config and is_present(folder / _TEMPLATE, ConfigError):
        warnings += (f"{_TEMPLATE} is ignored: `--template` selects a template",)
    known = {_content(config, "pad_token"), _content(special, "pad_token"), *_EXPECTED}
    added = {
        text
        for text, token_id in _added(folder, config, special)
        if tokenizer is not None and not _is_piece(text, token_id, tokenizer)
    }
    names = sorted(added - known)
    if names:
        shown = ", ".join(repr(name[:40]) for name in names[:_LISTED])
        rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        warnings += (f"tokens beyond tokenizer.model are read as plain text: {shown}{rest}",)
    return warnings


def _check_special(document: JsonConfig, tokenizer: Tokenizer | None) -> None:
    for key in ("bos_token", "eos_token", "unk_token"):
        text = _content(document, key)
        if text is None or tokenizer is None:
            continue
        piece = tokenizer.piece(getattr(tokenizer, key.replace("_token", "_id")))
        if text != piece:
            document.refuse(key, f"{piece!r}, as in tokenizer.model")


def _content(document: JsonConfig, key: str) -> str | None:
    """The text of a token: a string, or the object that transformers makes of an `AddedToken`."""
    return _text(document, key, document.get(key))


def _text(document: JsonConfig, key: str, value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str | None) or (text is None and value is not None):
        document.refuse(key, "a token: its text, or an object with its `content`")
    return text


def _added(
    folder: Path, config: JsonConfig, special: JsonConfig
) -> Iterator[tuple[str, int | None]]:
    """Yield the text of every token that the files list, and its id where they say it."""
    if "added_tokens_decoder" in config:
        section = config.section("added_tokens_decoder")
        for key in section.values:
            text = _content(section, key)
            if not key.isascii() or not key.isdigit() or len(key) > 7 or text is None:
                section.refuse(key, "the id of a token, and its text")
            yield text, int(key)
    added = read_optional_json_config(folder / ADDED_TOKENS)
    for text in added.values:
        yield text, added.integer(text, 0, _MAX_ID)
    for document in (config, special):
        for key in _LISTS:
            for value in _listed(document, key):
                text = _text(document, key, value)
                if text is not None:
                    yield text, None


def _listed(document: JsonConfig, key: str) -> list[Any]:
    """The values of a list, or of the object that transformers 4 writes in its place."""
    values = document.get(key, [])
    if isinstance(values, dict):
        return list(values.values())
    if not isinstance(values, list):
        document.refuse(key, "a list of tokens")
    return values


def _is_piece(text: str, token_id: int | None, tokenizer: Tokenizer) -> bool:
    """Whether a token is one of `tokenizer.model`.

    Raises:
        ConfigError: It has the id of another piece.
    """
    if token_id is not None and token_id < tokenizer.vocab_size:
        if tokenizer.piece(token_id) != text:
            raise ConfigError(
                f"the tokenizer's files do not agree on the token {token_id}",
                expected=f"{tokenizer.piece(token_id)!r}, as in tokenizer.model",
                found=repr(text[:40]),
                fix="Download the tokenizer's files from one place again.",
            )
        return True
    return token_id is None and tokenizer.has_piece(text)
