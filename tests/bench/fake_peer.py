"""A worker that runs no model: ``python -m tests.bench.fake_peer NAME=VALUE...``.

It answers as `mvlm.bench.peers.worker` does, each request with the same numbers, and appends what
it was asked to the file `log`. Faults: `crash`, `hang`, `rubbish` and `refuse` name the request
at which it kills itself, sleeps, prints what is no reply, or says that it failed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mvlm.bench.peers.worker import end_with_parent


def reply(do: str, options: dict[str, str], request: dict[str, Any]) -> dict[str, Any]:
    seconds = float(options.get("seconds", "0.01"))
    match do:
        case "open":
            facts = {"versions": {"fake": "1"}, "weight_bytes_per_token": 1_000_000}
            return facts | {"setup": request["setup"], "pid": os.getpid()}
        case "decode":
            return {"seconds": seconds, "tokens": request["tokens"]}
        case "features":
            return {"shape": None}
        case "peak":
            return {"bytes": float(options.get("bytes", "1e6"))}
    return {"seconds": seconds}


def main() -> None:
    end_with_parent()
    options = dict(word.split("=", 1) for word in sys.argv[1:])
    for line in sys.stdin:
        request = json.loads(line)
        do = request["do"]
        if "log" in options:
            with Path(options["log"]).open("a", encoding="utf-8") as log:
                log.write(f"{options.get('name')} {do} {os.getpid()}\n")
        if options.get("crash") == do:
            print("about to go", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if options.get("hang") == do:
            time.sleep(600)
        if options.get("rubbish") == do:
            print("ggml: hello there", flush=True)
            continue
        if options.get("refuse") == do:
            print(json.dumps({"error": "no such model"}), flush=True)
            continue
        print(json.dumps({"ok": reply(do, options, request)}), flush=True)


if __name__ == "__main__":
    main()
