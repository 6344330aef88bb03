"""The form of an answer, from a command's options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvlm.runtime.errors import UsageError

if TYPE_CHECKING:
    from mvlm.runtime.structured_output import Constraint


def read_form(
    choice: str | None, json_schema: Path | None, regex: str | None, grammar: Path | None
) -> Constraint | None:
    """Return the form that options ask for, at most one of them; None for any.

    Args:
        choice: Texts, with commas between them.
        json_schema: The file of a JSON schema.
        regex: A regular expression.
        grammar: The file of a grammar.

    Raises:
        UsageError: There are several, a file cannot be read, or it is no form.
    """
    from mvlm.runtime.structured_output import Constraint

    options = {
        "--choice": choice,
        "--json-schema": json_schema,
        "--regex": regex,
        "--grammar": grammar,
    }
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(" and ".join(given), expected="one form of the answer", found=len(given))
    if choice is not None:
        return Constraint.choice([text.strip() for text in choice.split(",")])
    if regex is not None:
        return Constraint.regex(regex)
    if json_schema is not None:
        return Constraint.json_schema(_read(json_schema, "--json-schema"))
    if grammar is not None:
        return Constraint.grammar(_read(grammar, "--grammar"))
    return None


def _read(path: Path, option: str) -> str:
    from mvlm.runtime.structured_output.constraint import MAX_BYTES

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UsageError(option, expected=f"at most {MAX_BYTES} bytes", found=path)
        return data.decode()
    except (OSError, ValueError) as error:
        raise UsageError(option, expected="a readable text", found=f"{path}: {error}") from None
