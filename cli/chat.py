"""``mvlm chat``: ask a model about images, once or in a conversation."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mvlm.cli.shared.artifacts import find_artifact
from mvlm.cli.shared.forms import read_form
from mvlm.cli.shared.options import (
    Debug,
    Json,
    Quantization,
    Threads,
    VisionTower,
)
from mvlm.cli.shared.progress import waiting
from mvlm.cli.shared.secrets import read_key
from mvlm.cli.shared.terminal import is_terminal, show_json, warn
from mvlm.cli.shared.user_path import is_server_url, path_or_server_url
from mvlm.runtime.errors import UsageError

if TYPE_CHECKING:
    from mvlm.cli.conversation.conversation import Conversation, Reply
    from mvlm.cli.conversation.local import LocalConversation
    from mvlm.runtime.engine import EngineSettings, Trace
    from mvlm.runtime.engine.speculation import Speculation
    from mvlm.runtime.sampling import SamplingParams
    from mvlm.runtime.structured_output import Constraint

EXAMPLES = (
    "mvlm chat mobilevlm-host --image photo.jpg",
    'mvlm chat mobilevlm-host --image photo.jpg --prompt "What is this?"',
    "mvlm chat mobilevlm-host --image photo.jpg --json < question.txt",
    'mvlm chat mobilevlm-host --image photo.jpg --prompt "Which colour?" --choice red,green',
    "mvlm chat http://127.0.0.1:8000 --image photo.jpg",
)

KEY_VARIABLE = "MVLM_API_KEY"


def command(
    place: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT|MODEL|URL",
            parser=path_or_server_url,
            help="An artifact's folder, or a checkpoint's, which is compiled for this machine on "
            "first use, or the address of a server that speaks OpenAI's API, such as "
            "http://127.0.0.1:8000.",
            show_default=False,
        ),
    ],
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
    choice: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Answer one of these texts.")
    ] = None,
    json_schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answer JSON by this schema.")
    ] = None,
    regex: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Answer what this regular expression matches."),
    ] = None,
    grammar: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Answer a text of this grammar, Lark's or GBNF."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The prompt template: vicuna_v1 or plain; default: the artifact's.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A server's model; default: its only one."),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"A server's key, on the first line; default: `${KEY_VARIABLE}`.",
        ),
    ] = None,
    lines: Annotated[
        bool,
        typer.Option(
            "--lines",
            help="Each line of standard input is a question or a command; default: all of it is "
            "one question.",
        ),
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Show the answer's Markdown as it is.")
    ] = False,
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

    On a terminal it starts a conversation: type /help for its commands. Ctrl-C ends an answer,
    Ctrl-D the conversation. With --prompt, or with a question on standard input, it answers once.
    """
    from mvlm.runtime.sampling import SamplingParams

    if prompt is not None and lines:
        raise UsageError("--lines reads questions from standard input, and --prompt has another")
    is_single = prompt is not None or not (lines or is_terminal(sys.stdin))
    if not is_single and (json or dump):
        raise UsageError(f"{'--json' if json else '--dump'} needs --prompt, or a piped question")
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
    constraint = read_form(choice, json_schema, regex, grammar)
    of_server = {"--model": model, "--api-key-file": api_key_file}
    of_local = {
        "--template": template,
        "--threads": threads,
        "--context": context_length,
        "--quant": quantization,
        "--vision-tower": vision_tower,
        "--dump": dump,
        "--speculate": None if speculate == "auto" else speculate,
    }
    opened: AbstractContextManager[Conversation]
    if is_server_url(place):
        _refuse(of_local, "a model on this machine")
        opened = _server(place, model, api_key_file)
    else:
        _refuse(of_server, "a server")
        from mvlm.runtime.engine import EngineSettings

        speculation = _speculation(speculate)
        artifact = find_artifact(Path(place), quantization=quantization, vision_tower=vision_tower)
        settings = EngineSettings(context=context_length, speculate=speculation)
        opened = _model(artifact, threads, template, settings)
    with opened as conversation:
        if is_single:
            question = _read_question() if prompt in (None, "-") else prompt
            asked = _Question(question or "", image or [], params, constraint)
            _answer_once(conversation, asked, dump, json, plain)
        else:
            from mvlm.cli.repl.loop import Repl

            Repl(conversation, params, image or [], plain=plain, constraint=constraint).run()


def _refuse(options: Mapping[str, object], what: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise UsageError(f"{option} is for {what}")


@contextmanager
def _model(
    artifact: Path, threads: int | None, template: str | None, settings: EngineSettings
) -> Iterator[LocalConversation]:
    with waiting("verifying and loading the artifact"):
        from mvlm.cli.conversation.local import LocalConversation
        from mvlm.runtime.chat import Chat
        from mvlm.runtime.model import Model
        from mvlm.runtime.template import TEMPLATES

        if template is not None and template not in TEMPLATES:
            raise UsageError("--template", expected=" or ".join(TEMPLATES), found=repr(template))
        chat = Chat(Model(artifact, threads), template, settings=settings)
    yield LocalConversation(chat)


@contextmanager
def _server(url: str, model: str | None, key_file: Path | None) -> Iterator[Conversation]:
    from mvlm.cli.conversation.remote import RemoteConversation
    from mvlm.cli.conversation.server_connection import ServerConnection, is_loopback

    key = read_key(key_file) if key_file else os.environ.get(KEY_VARIABLE) or None
    if key and url.lower().startswith("http:") and not is_loopback(url):
        warn(f"warning: the key and all texts go to {url} without encryption")
    connection = ServerConnection(url, key)
    try:
        yield RemoteConversation(connection, model)
    finally:
        connection.close()


def _speculation(mode: str) -> Speculation:
    from mvlm.runtime.engine.speculation import SPECULATIONS

    for known in SPECULATIONS:
        if mode == known:
            return known
    raise UsageError("--speculate", expected=" or ".join(SPECULATIONS), found=repr(mode))


def _read_question() -> str:
    from mvlm.cli.shared.streams import reading_input

    with reading_input():
        return sys.stdin.read().strip()


@dataclass(frozen=True)
class _Question:
    """What is asked once."""

    text: str
    images: Sequence[Path]
    params: SamplingParams
    constraint: Constraint | None


def _answer_once(
    conversation: Conversation, asked: _Question, dump: Path | None, json: bool, plain: bool
) -> None:
    from mvlm.cli.repl.display import show_reply

    attached = [conversation.attach(path) for path in asked.images]
    text, params, constraint = asked.text, asked.params, asked.constraint
    trace: Trace | None = None
    if dump is not None:
        from mvlm.cli.conversation.local import LocalConversation
        from mvlm.runtime.engine import Trace

        assert isinstance(conversation, LocalConversation)
        trace = Trace()
        reply: Reply = conversation.ask(text, attached, params, constraint=constraint, trace=trace)
    else:
        reply = conversation.ask(text, attached, params, constraint=constraint)
    if json:
        with waiting("answering"):
            for _ in reply:
                pass
    else:
        show_reply(reply, plain=plain)
    if dump and trace:
        _write_dump(dump, trace)
    if json:
        show_json(reply.to_json())


def _write_dump(path: Path, trace: Trace) -> None:
    """Write the stages whole or not at all."""
    import numpy as np

    from mvlm.runtime.atomic_write import atomic_write

    with atomic_write(path) as file:
        np.savez(file, **trace.arrays())  # type: ignore[arg-type]
