"""A device with an injected fault: ``python fake_device.py FOLDER``.

``FOLDER/connections`` has a file for each connection. The fault of the first connection is the name
of the file ``FOLDER/faults/1-...``, and so on: ``die``, ``hang``, ``invalid``, ``not-json``,
``mute``. It comes at the second request, after the first was answered.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    folder = Path(sys.argv[1])
    number = 1
    while True:  # two that start at once are two
        try:
            os.close(os.open(folder / "connections" / str(number), os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            number += 1
    fault = "".join(path.name for path in (folder / "faults").glob(f"{number}-*")).partition("-")[2]
    if fault == "mute":
        time.sleep(60)
    address = "one" if fault == "same" else f"device-{number}"
    print(json.dumps({"machine": {}, "address": address}), flush=True)
    for place, line in enumerate(sys.stdin):
        request = json.loads(line)
        if place > 0 and fault == "die":
            os._exit(3)
        if place > 0 and fault == "hang":
            time.sleep(60)
        seconds: object = [[0.5] * request["repeat"] for _ in request["libraries"]]
        if place > 0 and fault == "invalid":
            seconds = [[-1.0]]
        if place > 0 and fault == "not-json":
            print("[" * 100_000, flush=True)
            continue
        if "wrong" in request["libraries"][0]:
            print(json.dumps({"error": "ValueError: no function main"}), flush=True)
            continue
        if "fatal" in request["libraries"][0]:
            os._exit(4)
        time.sleep(0.02)
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
