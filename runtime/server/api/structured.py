"""The form of an answer, as OpenAI's API and vLLM's spell it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mvlm.runtime.errors import UsageError
from mvlm.runtime.server.errors import ApiError
from mvlm.runtime.structured_output import Constraint

Schema = dict[str, Any] | str


class JsonSchema(BaseModel):
    """A schema with a name; `strict` changes nothing, as answers always keep to it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """OpenAI's `response_format`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class TextFormat(BaseModel):
    """The `text.format` of OpenAI's responses: the same, without an object in between."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None

    def constraint(self) -> Constraint | None:
        """Return the form that is asked for; None for any.

        Raises:
            ApiError: It is none that is understood.
        """
        if self.type == "text":
            return None
        try:
            return _by_schema(self.type, self.schema_)
        except UsageError as error:
            raise ApiError(400, f"text.format: {error}", param="text.format") from None


class StructuredOutputs(BaseModel):
    """vLLM's `structured_outputs`."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)
    json_: Annotated[Schema | None, Field(alias="json")] = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class FormFields(BaseModel):
    """The fields of a request that ask for a form: at most one of them.

    The `guided_` fields are those that vLLM had before `structured_outputs`.
    """

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None

    def constraint(self) -> Constraint | None:
        """Return the form that is asked for; None for any.

        Raises:
            ApiError: There are several, or it is none that is understood.
        """
        asked = [each for each in self._asked() if each[2] is not None and each[2] is not False]
        if not asked:
            return None
        name, make, value = asked[0]
        if len(asked) > 1:
            names = ", ".join(each[0] for each in asked)
            raise ApiError(400, f"expected one form of the answer, found {names}", param=name)
        try:
            return make(value)
        except UsageError as error:
            raise ApiError(400, f"{name}: {error}", param=name) from None

    def _asked(self) -> list[tuple[str, Callable[[Any], Constraint], Any]]:
        given = self.structured_outputs or StructuredOutputs()
        return [
            ("response_format", _by_format, _formatted(self.response_format)),
            ("structured_outputs.json", Constraint.json_schema, given.json_),
            ("structured_outputs.json_object", _any_object, given.json_object),
            ("structured_outputs.regex", Constraint.regex, given.regex),
            ("structured_outputs.choice", Constraint.choice, given.choice),
            ("structured_outputs.grammar", Constraint.grammar, given.grammar),
            ("guided_json", Constraint.json_schema, self.guided_json),
            ("guided_regex", Constraint.regex, self.guided_regex),
            ("guided_choice", Constraint.choice, self.guided_choice),
            ("guided_grammar", Constraint.grammar, self.guided_grammar),
        ]


def _formatted(given: ResponseFormat | None) -> ResponseFormat | None:
    return None if given is None or given.type == "text" else given


def _by_format(given: ResponseFormat) -> Constraint:
    named = given.json_schema
    return _by_schema(given.type, None if named is None else named.schema_)


def _by_schema(kind: str, schema: dict[str, Any] | None) -> Constraint:
    if kind == "json_object":
        return Constraint.json_schema()
    if schema is None:
        raise UsageError("json_schema", expected="an object with a schema", found="none")
    return Constraint.json_schema(schema)


def _any_object(_: bool) -> Constraint:
    return Constraint.json_schema()
