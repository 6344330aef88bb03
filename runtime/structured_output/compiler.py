"""A form to a matcher over the model's tokens."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mvlm.runtime.structured_output.constraint import Constraint
from mvlm.runtime.structured_output.token_matcher import ConstraintError, TokenMatcher, first_line
from mvlm.runtime.structured_output.vocabulary import read_vocabulary
from mvlm.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer
    from llguidance._lib import JsonCompileOptions

# Compiled forms that are kept for requests of the same form.
_KEPT = 32
_FORM = "form"
# As json.dumps writes. A model that may write any white space writes it without end at times, and
# what is forced need not be computed one token at a time.
_JSON_OPTIONS: JsonCompileOptions = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}


class ConstraintCompiler:
    """Compiles forms for one model; threads may share it.

    Args:
        tokenizer: The model's.
        vocabulary: Tokens of the model.
        eos: Those that end an answer; at least one.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, eos: Sequence[int]) -> None:
        self._tokenizer, self._vocabulary, self._eos = tokenizer, vocabulary, tuple(eos)
        self._tokens: LLTokenizer | None = None
        self._lock = threading.Lock()
        self._compiled: OrderedDict[tuple[Constraint, bool], TokenMatcher] = OrderedDict()

    def compile(self, constraint: Constraint, *, after_text: bool = False) -> TokenMatcher:
        """Return a matcher of a form, at its beginning.

        Args:
            constraint: The form.
            after_text: Whether the answer goes on from a text as it is. Else one space may come
                before it, which is no part of the answer: answers of chat models begin with it.

        Raises:
            ConstraintError: The form is not understood, or too complex.
            MvlmError: The package llguidance is not installed.
        """
        key = (constraint, after_text)
        with self._lock:
            if self._tokens is None:
                self._tokens = read_vocabulary(self._tokenizer, self._vocabulary, self._eos)
            if key in self._compiled:
                self._compiled.move_to_end(key)
                return self._compiled[key].copy()
        matcher = self._compile(self._tokens, constraint, after_text)
        with self._lock:
            self._compiled[key] = matcher
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return matcher.copy()

    def _compile(
        self, tokens: LLTokenizer, constraint: Constraint, after_text: bool
    ) -> TokenMatcher:
        from llguidance import LLMatcher

        start = f"start: @{_FORM}" if after_text else f'start: " "? @{_FORM}'
        grammars = [{"lark_grammar": start}, {"name": _FORM, **_translated(constraint)}]
        found = LLMatcher(tokens, json.dumps({"grammars": grammars}), log_level=0)
        if found.is_error():
            raise ConstraintError(constraint.kind, found=first_line(found.get_error()))
        matcher = TokenMatcher(found, self._vocabulary)
        # What is too complex mostly shows here, before an answer has begun.
        matcher.masks()
        return matcher


def _translated(constraint: Constraint) -> dict[str, Any]:
    """Return a form as one of llguidance's grammars.

    Raises:
        ConstraintError: It is not understood.
    """
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

    if constraint.kind == "choice":
        texts = json.loads(constraint.source)
        return {"lark_grammar": "start: " + " | ".join(map(json.dumps, texts))}
    try:
        if constraint.kind == "grammar":
            return {"lark_grammar": any_to_lark(constraint.source)}
        if constraint.kind == "regex":
            written = LLMatcher.grammar_from_regex(constraint.source)
        else:
            written = LLMatcher.grammar_from_json_schema(constraint.source, overrides=_JSON_OPTIONS)
    except (GbnfToLarkError, ValueError, LookupError, RecursionError) as error:
        raise ConstraintError(constraint.kind, found=first_line(str(error))) from None
    grammar = json.loads(written)["grammars"][0]
    return {key: value for key, value in grammar.items() if key != "name" and value is not None}
