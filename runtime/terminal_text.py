"""Text from files, models and the network, made safe to show on a terminal.

Only what can command a terminal, or reorder the text around it, is replaced. All other text goes
through as it is, in every language: most scripts need characters that Python does not call
printable, such as joiners, no-break spaces and soft hyphens.

What is replaced, and why:

- C0 controls but for line feed and tab, DEL, and C1 controls (U+0080 to U+009F, which terminals
  also obey when they arrive as UTF-8): they begin escape sequences, move the cursor and erase. A
  carriage return can overwrite what stands before it.
- Bidirectional embeddings, overrides and isolates (U+202A to U+202E, U+2066 to U+2069): left
  open, they reorder the text that follows, ours included, and make ``exe.gpj`` read as ``jpg.exe``
  (Boucher and Anderson, "Trojan Source", 2021). Right-to-left text does not need them: its letters
  and the marks U+200E, U+200F and U+061C, which reorder nothing else, stay.
- Surrogates: no encoding can write them. Python makes them of bytes in file names that are not
  UTF-8.

What stays, though Python calls it not printable:

- Spaces of all kinds, joiners and non-joiners, soft hyphens, word joiners, and the format
  characters of single scripts: they shape the text that they stand in.
- Tag characters (U+E0020 to U+E007F): the flags of Scotland and Wales are made of them.
- Line and paragraph separators: terminals do not break lines there.
- Private-use characters: fonts for terminals draw symbols with them.
- Characters that are not assigned: Python's table of them is older than the newest emoji.
- Interlinear annotations: terminals do not interpret them.
"""

import re

_REPLACEMENT = "\ufffd"
_COMMANDS = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls
    "\u202a-\u202e\u2066-\u2069"  # directions
    "\ud800-\udfff"  # surrogates
    "]"
)
_LINE_BREAKS = re.compile("[ \t]*[\n\v\f\r][ \t\n\v\f\r]*")


def printable(text: str) -> str:
    """Replace each character that can command a terminal by U+FFFD."""
    return _COMMANDS.sub(_REPLACEMENT, text)


def one_line(text: str) -> str:
    """Replace line breaks, with the blanks around them, by one space each; by none at the ends."""
    return _LINE_BREAKS.sub(" ", text.strip("\n\v\f\r"))
