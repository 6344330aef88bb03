"""``mvlm demo``: the bundled model looks at the bundled image, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mvlm.cli.shared.answers import speeds, stream_answer
from mvlm.cli.shared.artifacts import find_artifact
from mvlm.cli.shared.options import Debug, Json, Quantization, Threads
from mvlm.cli.shared.progress import waiting
from mvlm.cli.shared.terminal import show, show_json, show_table

EXAMPLES = (
    "mvlm demo",
    'mvlm demo --image mine.png --prompt "What colour is the circle?"',
)

_MODEL = "mobilevlm-shapes"
_IMAGE = "demo.png"
_PROMPT = "Describe the picture."


def command(
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An image of shapes; default: the bundled one."),
    ] = None,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="The question.")] = _PROMPT,
    threads: Threads = None,
    quantization: Quantization = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask the bundled model about an image.

    The first run compiles the model for this machine; later runs find it in the cache. It answers
    plain questions about images of one to four coloured shapes.
    """
    from mvlm.cli.shared.images import load_pixels

    shown = image or _bundled() / "images" / _IMAGE
    artifact = find_artifact(_bundled() / _MODEL, quantization=quantization)
    with waiting("loading the model"):
        from mvlm.runtime.chat import Chat
        from mvlm.runtime.model import Model

        chat = Chat(Model(artifact, threads))
    pixels = load_pixels(shown, chat.model)
    if json:
        completion = chat.generate(prompt, [pixels]).completion
        about = {"image": str(shown), "prompt": prompt, "artifact": str(artifact)}
        show_json(about | completion.to_json())
        return
    _introduce(shown, prompt)
    completion = stream_answer(chat.generate(prompt, [pixels]))
    show("")
    show_table(speeds(completion.stats))


def _introduce(image: Path, prompt: str) -> None:
    from mvlm.cli.shared.preview import show_preview

    show(f"image     {image}")
    show_preview(image)
    show(f"question  {prompt}")
    show("answer    ", end="")


def _bundled() -> Path:
    import mvlm.models

    return Path(next(iter(mvlm.models.__path__))) / "bundled"
