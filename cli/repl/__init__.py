"""The chat with a person on a terminal, or with a script that plays one.

`loop` reads lines and answers them, `commands` has what begins with ``/``. `line_editor`, `history`
and `completion` are for a person's keyboard; `markdown_stream` draws answers; `image_arguments` and
`clipboard` find images, `export` writes conversations for other programs.
"""
