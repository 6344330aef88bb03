"""``mvlm serve``: answer programs by OpenAI's HTTP API."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mvlm.cli.shared.artifacts import find_artifact
from mvlm.cli.shared.options import Debug, Quantization, Threads
from mvlm.cli.shared.progress import waiting
from mvlm.cli.shared.terminal import warn
from mvlm.runtime.errors import MvlmError, UsageError

if TYPE_CHECKING:
    from mvlm.runtime.server.models.served_model import ServedModel

EXAMPLES = (
    "mvlm serve mobilevlm-host",
    "mvlm serve mobilevlm-host --port 9000 --api-key-file keys.txt",
    "mvlm serve small=mobilevlm-host large=MobileVLM-V2-1.7B --load-on-demand --max-loaded 1",
)
KEY_VARIABLE = "MVLM_API_KEY"
_BACKLOG = 512
_MOST_KEY_BYTES = 1 << 16
_Choice = TypeVar("_Choice", bound=str)


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]ARTIFACT|MODEL...",
            help="What to serve: artifacts' folders, or checkpoints', which are compiled for this "
            "machine on first use. Requests say NAME; default: the folder's.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Listen on this address.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Listen on this port; 0: any.")
    ] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Keys, one of which a request needs, a line each; `${KEY_VARIABLE}` is another.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name under which requests may come; default: names of this machine where it "
            "listens to itself alone, else all.",
        ),
    ] = None,
    allow_image_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:PORT]",
            help="A host from which images are fetched by their URLs; default: none is fetched.",
        ),
    ] = None,
    max_answers: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Answers begun at once; others are told to wait."),
    ] = 64,
    log_format: Annotated[
        str,
        typer.Option(
            metavar="text|json|none",
            help="How the log is written, to standard error: a line for each request, without what "
            "was said.",
        ),
    ] = "text",
    log_level: Annotated[
        str,
        typer.Option(
            metavar="debug|info|warning|error",
            help="What is written: `info` has all requests, `error` those that the server failed.",
        ),
    ] = "info",
    load_on_demand: Annotated[
        bool,
        typer.Option(
            "--load-on-demand",
            help="Load a model for its first request. The one that was used longest ago, and is "
            "not in use, gives way where memory is short.",
        ),
    ] = False,
    max_loaded: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Models loaded at once, with --load-on-demand; default: any."
        ),
    ] = None,
    threads: Threads = None,
    context_length: Annotated[
        int | None,
        typer.Option("--context", metavar="N", help="Positions of a prompt and its answer."),
    ] = None,
    capacity: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Positions of the KV cache, of all answers; default: four contexts."
        ),
    ] = None,
    quantization: Quantization = None,
    debug: Debug = False,
) -> None:
    """Serve models to programs, by OpenAI's HTTP API, and to people, by a page.

    Ctrl-C or SIGTERM ends it: answers that have begun may end within 30 seconds.
    """
    try:
        from mvlm.runtime.server.app import create_app
        from mvlm.runtime.server.http.http_server import HttpServer
        from mvlm.runtime.server.models.model_pool import ModelPool
        from mvlm.runtime.server.observability.request_log import (
            LOG_FORMATS,
            LOG_LEVELS,
            configure_logging,
        )
        from mvlm.runtime.server.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise MvlmError(
            f"the server needs {error.name}", fix="Install it: pip install 'mvlm[serve]'."
        ) from None

    configure_logging(
        _choice("--log-format", log_format, LOG_FORMATS),
        _choice("--log-level", log_level, LOG_LEVELS),
    )
    keys = _read_keys(api_key_file)
    settings = ServerSettings(
        keys,
        tuple(allow_host or _names_of(host)),
        image_hosts=tuple(allow_image_host or ()),
        max_answers=max_answers,
    )
    if max_loaded is not None and not load_on_demand:
        raise UsageError("--max-loaded", expected="--load-on-demand beside it", found="none")
    sources = {
        name: _source(name, path, quantization, threads, context_length, capacity)
        for name, path in _named(models)
    }
    if load_on_demand:
        pool = ModelPool(on_demand=sources, most=max_loaded)
    else:
        pool = ModelPool([_loaded(name, load) for name, load in sources.items()])
    app = create_app(pool, settings)
    with _listening(host, port) as listener:
        address = f"[{host}]" if ":" in host else host
        warn(f"serving {', '.join(pool.names)} on http://{address}:{listener.getsockname()[1]}")
        HttpServer(app).serve_on(listener)


def _choice(option: str, given: str, known: Sequence[_Choice]) -> _Choice:
    """Return the choice that a word names.

    Raises:
        UsageError: It names none.
    """
    for choice in known:
        if choice == given:
            return choice
    raise UsageError(option, expected=" or ".join(known), found=repr(given))


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on an address.

    Raises:
        UsageError: It is no address of this machine, or in use.
    """
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(place[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise UsageError(
            f"--host {host} --port {port}",
            expected="a free address of this machine",
            found=error.strerror or error,
        ) from None
    # asyncio lets packets go at once only where the protocol is named, which create_server does
    # not; else the first token waits 40 ms for an acknowledgement (Nagle's algorithm).
    kind = socket.SOCK_STREAM
    with socket.socket(family, kind, socket.IPPROTO_TCP, fileno=listener.detach()) as named:
        yield named


def _named(models: Sequence[str]) -> list[tuple[str, Path]]:
    """Split names from paths.

    Raises:
        UsageError: Two models have one name.
    """
    named = []
    for model in models:
        name, equals, path = model.partition("=")
        place = Path(path if equals else name)
        named.append((name if equals else place.resolve().name, place))
    if len({name for name, _ in named}) < len(named):
        raise UsageError("models", expected="different names", found=", ".join(n for n, _ in named))
    return named


def _source(
    name: str,
    path: Path,
    quantization: str | None,
    threads: int | None,
    context: int | None,
    capacity: int | None,
) -> Callable[[], ServedModel]:
    """Return what loads a model; a checkpoint is compiled now."""
    from mvlm.runtime.engine import EngineSettings
    from mvlm.runtime.server.models.served_model import ServedModel

    artifact = find_artifact(path, quantization=quantization)
    settings = EngineSettings(context, capacity)
    return lambda: ServedModel.load(name, artifact, threads, settings)


def _loaded(name: str, load: Callable[[], ServedModel]) -> ServedModel:
    with waiting(f"verifying and loading {name}"):
        return load()


def _read_keys(path: Path | None) -> tuple[str, ...]:
    """Return the keys of a file and of the environment.

    Raises:
        UsageError: The file cannot be read, or holds none.
    """
    keys = [os.environ[KEY_VARIABLE]] if os.environ.get(KEY_VARIABLE) else []
    if path is not None:
        try:
            with path.open("rb") as file:
                lines = file.read(_MOST_KEY_BYTES).decode().split()
        except (OSError, ValueError) as error:
            raise UsageError("--api-key-file", expected="a readable text", found=error) from None
        if not lines:
            raise UsageError("--api-key-file", expected="a key in each line", found="none")
        keys += lines
    return tuple(keys)


def _names_of(host: str) -> tuple[str, ...]:
    """Return the names that requests may use: of a server for this machine alone, its own."""
    try:
        is_own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = host == "localhost"
    return ("localhost", "127.0.0.1", "[::1]", host) if is_own else ("*",)
