"""A process that asks a server for completions, and notes when each token came.

``python -m mvlm.bench.serving.client`` reads a :class:`Load` as JSON from its standard input, and
writes an :class:`Exchange` for each answer to its standard output, a line each.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

_TEXT = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work number night "
    "point home water room mother area money story fact month lot right study book eye job word"
)


@dataclass(frozen=True)
class Load:
    """What clients ask for.

    Attributes:
        url: The server's completions.
        model: The model's name there.
        clients: So many ask at once, each for one answer after the other.
        seconds: A client asks for no answer after so long, but for its first one.
        words: Of a prompt. No two prompts are alike.
        tokens: Of an answer.
        first: The number of the first prompt.
    """

    url: str
    model: str
    clients: int
    seconds: float
    words: int
    tokens: int
    first: int = 0


@dataclass(frozen=True)
class Exchange:
    """An answer, or why there is none.

    Attributes:
        prompt: Its number.
        text: The answer.
        tokens: How many it has, as the server says.
        times: When each event with text came, in seconds since it was asked for.
        seconds: Until its end.
        error: What went wrong.
    """

    prompt: int
    text: str = ""
    tokens: int = 0
    times: list[float] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None


def prompt_text(number: int, words: int) -> str:
    """Return a prompt of common words; no two numbers have the same."""
    draw = random.Random(number)
    return f"{number}: " + " ".join(draw.choices(_TEXT.split(), k=words))


async def ask(client: Any, load: Load, number: int) -> Exchange:
    """Ask for one answer."""
    body = {
        "model": load.model,
        "prompt": prompt_text(number, load.words),
        "max_tokens": load.tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begin, times, texts, tokens = time.perf_counter(), list[float](), list[str](), 0
    try:
        async with client.stream("POST", load.url, json=body) as answer:
            if answer.status_code != 200:
                found = (await answer.aread()).decode("utf-8", "replace")
                return Exchange(number, error=f"{answer.status_code}: {found:.200}")
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    return Exchange(number, error=str(event["error"])[:200])
                for choice in event.get("choices", ()):
                    if choice.get("text"):
                        times.append(time.perf_counter() - begin)
                        texts.append(choice["text"])
                if event.get("usage"):
                    tokens = event["usage"]["completion_tokens"]
    except Exception as error:  # whatever it is, it is a failed answer
        return Exchange(number, error=repr(error)[:200])
    return Exchange(number, "".join(texts), tokens, times, time.perf_counter() - begin)


async def run(load: Load) -> list[Exchange]:
    """Ask as long as the load says."""
    import httpx

    numbers, end = iter(range(load.first, sys.maxsize)), time.perf_counter() + load.seconds
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:

        async def one(numbers: Iterator[int]) -> list[Exchange]:
            found = [await ask(client, load, next(numbers))]
            while time.perf_counter() < end:
                found.append(await ask(client, load, next(numbers)))
            return found

        several = await asyncio.gather(*(one(numbers) for _ in range(load.clients)))
    return [exchange for found in several for exchange in found]


def main() -> None:
    """Read a load, and write what came of it."""
    for exchange in asyncio.run(run(Load(**json.load(sys.stdin)))):
        print(json.dumps(asdict(exchange)))


if __name__ == "__main__":
    main()
