"""The form that is asked for of an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mvlm.runtime.errors import UsageError

Kind: TypeAlias = Literal["json_schema", "regex", "choice", "grammar"]

# Compiling a form takes longer than its length alone says: this much takes half a second.
MAX_BYTES = 1 << 16
# Of a schema that says nothing but that the answer is JSON.
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
# llguidance's own keyword, by which a schema would switch its checks off.
_OPTIONS = "x-guidance"


@dataclass(frozen=True)
class Constraint:
    """A form, to be made by one of the methods below.

    Attributes:
        kind: What it is written in.
        source: A JSON schema, a regular expression, a JSON list of texts, or a grammar.

    Raises:
        UsageError: It is empty, or too long.
    """

    kind: Kind
    source: str

    def __post_init__(self) -> None:
        size = len(self.source.encode("utf-8", "surrogatepass"))
        if not 0 < size <= MAX_BYTES:
            raise UsageError(self.kind, expected=f"1 to {MAX_BYTES} bytes", found=size)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str = ANY_OBJECT) -> Constraint:
        """Ask for JSON by a schema (draft 2020-12), as an object or as its text.

        The answer is one line, with its properties in the schema's order.

        Raises:
            UsageError: It is no schema, or too long.
        """
        found: Any = schema
        try:
            if isinstance(schema, str):
                found = json.loads(schema)
            text = json.dumps(found, ensure_ascii=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise UsageError("json_schema", expected="JSON", found=f"{error!s:.200}") from None
        if not isinstance(found, dict):
            raise UsageError("json_schema", expected="an object", found=f"{text:.40}")
        if _OPTIONS in found:
            raise UsageError("json_schema", expected="JSON Schema's keywords", found=_OPTIONS)
        return cls("json_schema", text)

    @classmethod
    def regex(cls, pattern: str) -> Constraint:
        """Ask for a text that a regular expression matches as a whole.

        Its syntax is that of Rust's `regex`: no look-around and no references.

        Raises:
            UsageError: It is empty, or too long.
        """
        return cls("regex", pattern)

    @classmethod
    def choice(cls, texts: Sequence[str]) -> Constraint:
        """Ask for one of several texts.

        Raises:
            UsageError: There is none, or one is empty or has white space at an end, which answers
                do not have.
        """
        for text in texts:
            if not isinstance(text, str) or not text or text != text.strip():
                raise UsageError(
                    "choice",
                    expected="texts without white space at the ends",
                    found=f"{text!r:.40}",
                )
        if not texts:
            raise UsageError("choice", expected="one text or more", found="none")
        return cls("choice", json.dumps(list(dict.fromkeys(texts)), ensure_ascii=False))

    @classmethod
    def grammar(cls, text: str) -> Constraint:
        """Ask for a text of a context-free grammar, in Lark's notation or llama.cpp's GBNF.

        Raises:
            UsageError: It is empty, or too long.
        """
        return cls("grammar", text)
