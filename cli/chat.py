"""``mvlm chat``: ask a model about images, once or in a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvlm.cli.shared.answers import stream_answer
from mvlm.cli.shared.artifacts import find_artifact
from mvlm.cli.shared.options import (
    ArtifactOrModel,
    Debug,
    Json,
    Quantization,
    Threads,
    VisionTower,
)
from mvlm.cli.shared.progress import waiting
from mvlm.cli.shared.terminal import show_json
from mvlm.runtime.errors import UsageError

if TYPE_CHECKING:
    from mvlm.runtime.chat import Chat
    from mvlm.runtime.engine import EngineSettings, Trace
    from mvlm.runtime.engine.speculation import Speculation
    from mvlm.runtime.sampling import SamplingParams

EXAMPLES = (
    "mvlm chat mobilevlm-host --image photo.jpg",
    'mvlm chat mobilevlm-host --image photo.jpg --prompt "What is this?"',
    "mvlm chat mobilevlm-host --image photo.jpg --prompt - --json < question.txt",
)


def command(
    path: ArtifactOrModel,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="An image to ask about; may be given several times."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Ask this and exit; `-` reads it from standard input."),
    ] = None,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="Sampling temperature; 0 decodes greedily.")
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            metavar="P", help="Sample from the likeliest tokens of this total probability."
        ),
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option(metavar="K", help="Sample from the K likeliest tokens; 0: from all.")
    ] = 0,
    repetition_penalty: Annotated[
        float, typer.Option(metavar="R", help="Above 1 makes repetitions less likely.")
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of the sampling; default: random.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", help="Maximum length of an answer, in tokens.")
    ] = 512,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End an answer here; may be given several times."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The prompt template: vicuna_v1 or plain; default: the artifact's.",
        ),
    ] = None,
    threads: Threads = None,
    context_length: Annotated[
        int | None,
        typer.Option(
            "--context", metavar="N", help="Positions of the context; default: the model's."
        ),
    ] = None,
    speculate: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help="Draft tokens from what was said before, and verify several at once: off, ngram, "
            "or auto where it is faster. The answer is the same.",
        ),
    ] = "auto",
    quantization: Quantization = None,
    vision_tower: VisionTower = None,
    dump: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", help="With --prompt: write every stage's arrays to this file."
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask a model about images.

    Without --prompt, it starts a conversation: type /help for its commands. Ctrl-C ends an answer,
    Ctrl-D the conversation.
    """
    from mvlm.runtime.engine import EngineSettings
    from mvlm.runtime.sampling import SamplingParams

    if prompt is None and (json or dump):
        raise UsageError(f"{'--json' if json else '--dump'} needs --prompt")
    if dump is not None and not dump.parent.is_dir():
        raise UsageError("--dump", expected="a file in a folder", found=f"no folder {dump.parent}")
    params = SamplingParams(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        seed=seed,
        max_tokens=max_tokens,
        stop=tuple(stop or ()),
    )
    artifact = find_artifact(path, quantization=quantization, vision_tower=vision_tower)
    with waiting("verifying and loading the artifact"):
        settings = EngineSettings(context=context_length, speculate=_speculation(speculate))
        chat = _open_chat(artifact, threads, template, settings)
    if prompt is None:
        from mvlm.cli.shared.repl import Repl

        Repl(chat, params, image or []).run()
    else:
        question = _read_question() if prompt == "-" else prompt
        _answer_once(chat, question, image or [], params, dump, json)


def _open_chat(
    artifact: Path, threads: int | None, template: str | None, settings: EngineSettings
) -> Chat:
    from mvlm.runtime.chat import Chat
    from mvlm.runtime.model import Model
    from mvlm.runtime.template import TEMPLATES

    if template is not None and template not in TEMPLATES:
        raise UsageError("--template", expected=" or ".join(TEMPLATES), found=repr(template))
    return Chat(Model(artifact, threads), template, settings=settings)


def _speculation(mode: str) -> Speculation:
    from mvlm.runtime.engine.speculation import SPECULATIONS

    for known in SPECULATIONS:
        if mode == known:
            return known
    raise UsageError("--speculate", expected=" or ".join(SPECULATIONS), found=repr(mode))


def _read_question() -> str:
    from mvlm.cli.shared.streams import reading_input

    with reading_input():
        return sys.stdin.read()


def _answer_once(
    chat: Chat,
    question: str,
    images: list[Path],
    params: SamplingParams,
    dump: Path | None,
    json: bool,
) -> None:
    from mvlm.cli.shared.images import load_pixels
    from mvlm.runtime.engine import Trace

    pixels = [load_pixels(path, chat.model) for path in images]
    trace = Trace() if dump else None
    generation = chat.generate(question, pixels, params, trace)
    if json:
        with waiting("answering"):
            completion = generation.completion
    else:
        completion = stream_answer(generation)
    if dump and trace:
        _write_dump(dump, trace)
    if json:
        show_json(completion.to_json())


def _write_dump(path: Path, trace: Trace) -> None:
    """Write the stages whole or not at all."""
    import numpy as np

    from mvlm.runtime.atomic_write import atomic_write

    with atomic_write(path) as file:
        np.savez(file, **trace.arrays())  # type: ignore[arg-type]
