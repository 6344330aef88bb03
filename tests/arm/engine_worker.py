"""Runs under qemu, in the arm64 Python: answers random requests alone, and then all at once.

Its argument is an artifact. It prints a JSON object: by each request's number its tokens alone and
in company, and what the engine counted.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from mvlm.runtime.engine import Engine, EngineSettings, Request
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams

REQUESTS = 12


def random_request(number: int, vocabulary: int) -> Request:
    """A short prompt that begins like others and repeats itself; greedy, or seeded."""
    draw = random.Random(number)
    ids = [1, *range(5, 5 + draw.randrange(1, 30)), *[7, 8, 9] * draw.randrange(3)]
    ids += [draw.randrange(3, vocabulary) for _ in range(draw.randrange(5))]
    params = SamplingParams(temperature=0.8 * (number % 2), seed=number, max_tokens=8)
    return Request(ids, params=params)


def main() -> None:
    """Compare."""
    model = Model(Path(sys.argv[1]), threads=2)
    requests = [random_request(number, model.settings.vocabulary) for number in range(REQUESTS)]
    alone = []
    for request in requests:
        engine = Engine(model, EngineSettings(speculate="off"))
        (answer,) = engine.submit(request)
        alone.append(list(engine.tokens(answer)))
    engine = Engine(model, EngineSettings(speculate="ngram", prefill_rows=16))
    answers = [engine.submit(request)[0] for request in requests]
    while not engine.is_idle:
        engine.step()
    found = {
        "alone": alone,
        "in_company": [answer.tokens for answer in answers],
        "drafted": sum(answer.stats.drafted for answer in answers),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
