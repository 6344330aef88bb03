"""Many clients at once: throughput and waiting, of ``mvlm serve`` and of llama.cpp's server.

The servers run at the same time and are asked one after the other, in slices of equal length, so
that both meet the same machine. Of our answers, some are asked for again when nobody else asks:
they have to be the same. ``alone`` is the engine without a server, decoding one of the prompts.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mvlm.bench.docs_table import write_table
from mvlm.bench.serving.client import Exchange, Load, prompt_text
from mvlm.bench.serving.figures import Figures, figures
from mvlm.bench.serving.servers import NAME, OURS, Server, llama_server, our_server
from mvlm.runtime.artifact.layout import TOKENIZER
from mvlm.runtime.engine import Engine, EngineSettings, Request
from mvlm.runtime.machine import read_machine
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.start_module import module_command
from mvlm.runtime.tokenizer import Tokenizer

DOCUMENT = Path("docs/server.md")
_REPEATED = 16
# Prompts of different loads are apart by so many numbers.
_STRIDE = 1_000_000


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        server: Its name.
        clients: How many asked.
        found: What they noted.
        growth_bytes: Of the server's memory, from the first slice's end to the last one's.
        different: Answers that were not those that come when nobody else asks; None if that was not
            tried.
    """

    server: str
    clients: int
    found: Figures
    growth_bytes: int
    different: int | None

    def to_markdown(self) -> str:
        """Return the line."""
        cells = (
            self.server,
            self.clients,
            self.found.answers,
            self.found.failed,
            "-" if self.different is None else self.different,
            f"{self.found.tok_s:.1f}",
            *(f"{value:.0f}" for value in (*self.found.first_ms, *self.found.between_ms)),
            f"{self.growth_bytes / 2**20:+.1f}",
        )
        return f"| {' | '.join(map(str, cells))} |\n"


HEAD = (
    "| server | clients | answers | failed | other than alone | tok/s | first token p50, ms | p99 "
    "| between tokens p50, ms | p99 | memory, MB |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
)


def run_client(load: Load) -> list[Exchange]:
    """Ask in a process of its own, and return what came."""
    done = subprocess.run(
        module_command("mvlm.bench.serving.client"),
        input=json.dumps(asdict(load)).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return [Exchange(**json.loads(line)) for line in done.stdout.splitlines()]


def measure(servers: Sequence[Server], load: Load, slices: int) -> Iterator[Row]:
    """Ask the servers in turn, and yield a row for each."""
    found: dict[str, list[Exchange]] = {server.name: [] for server in servers}
    taken = dict.fromkeys(found, 0.0)
    memory: dict[str, list[int]] = {server.name: [] for server in servers}
    part = replace(load, seconds=load.seconds / slices)
    for number in range(slices):
        for server in servers:
            begin = time.perf_counter()
            first = load.first + number * (_STRIDE // slices)
            found[server.name] += run_client(replace(part, url=server.url, first=first))
            taken[server.name] += time.perf_counter() - begin
            memory[server.name].append(server.rss_bytes())
            print(
                f"{server.name}, {load.clients} clients, {number + 1} of {slices}", file=sys.stderr
            )
    for server in servers:
        exchanges = found[server.name]
        yield Row(
            server.name,
            load.clients,
            figures(exchanges, taken[server.name]),
            memory[server.name][-1] - memory[server.name][0],
            different(server, load, exchanges) if server.name == OURS else None,
        )


def different(server: Server, load: Load, exchanges: Sequence[Exchange]) -> int:
    """Count answers that are others when they are asked for alone, of a sample."""
    good = [each for each in exchanges if each.error is None]
    sample = random.Random(0).sample(good, min(_REPEATED, len(good)))
    count = 0
    for each in sample:
        once = replace(load, url=server.url, clients=1, seconds=0.0, first=each.prompt)
        (again,) = run_client(once)
        count += again.text != each.text
    return count


def decode_alone(artifact: Path, threads: int, load: Load) -> float:
    """Return the tokens a second of the engine, of one answer after its first token."""
    model = Model(artifact, threads)
    tokenizer = Tokenizer(model.folder / TOKENIZER, legacy=model.settings.legacy_tokenizer)
    engine, speeds = Engine(model, EngineSettings()), []
    for number in range(5):
        ids = tokenizer.encode(prompt_text(load.first + number, load.words), bos=True)
        (answer,) = engine.submit(Request(ids, params=SamplingParams(max_tokens=load.tokens)))
        times = [time.perf_counter() for _ in engine.tokens(answer)]
        speeds.append((len(times) - 1) / (times[-1] - times[0]))
    return statistics.median(speeds)


def main() -> None:
    """Measure, and print the table or put it into the documentation."""
    parser = argparse.ArgumentParser(prog="python -m mvlm.bench.serving.study", description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--seconds", type=float, default=600.0, help="of each number of clients")
    parser.add_argument("--slices", type=int, default=5)
    parser.add_argument("--words", type=int, default=150)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-server", type=Path, help="llama.cpp's binary")
    parser.add_argument("--gguf", type=Path, help="the model for it")
    parser.add_argument("--write", metavar="MARK", help=f"put the table into {DOCUMENT}")
    options = parser.parse_args()
    most = max(options.clients)
    capacity = most * 1024
    table, alone = HEAD, 0.0
    with ExitStack() as stack:
        servers = [stack.enter_context(our_server(options.artifact, options.threads, capacity))]
        if options.llama_server is not None:
            peer = llama_server(options.llama_server, options.gguf, options.threads, capacity, most)
            servers.append(stack.enter_context(peer))
        for index, clients in enumerate(options.clients):
            first = (index + 1) * _STRIDE
            load = Load("", NAME, clients, options.seconds, options.words, options.tokens, first)
            for row in measure(servers, load, options.slices):
                table += row.to_markdown()
                print(row.to_markdown(), end="", file=sys.stderr)
        alone = decode_alone(options.artifact, options.threads, load)
    facts = (
        f"{read_machine().cpu}, {options.threads} threads, {options.artifact.resolve().name}; "
        f"prompts of {options.words} words, answers of {options.tokens} tokens, "
        f"{options.seconds:g} s each. The engine alone decodes one answer at {alone:.1f} tok/s.\n\n"
    )
    print(facts + table)
    if options.write:
        write_table(DOCUMENT, options.write, facts + table)


if __name__ == "__main__":
    main()
