"""A device that misbehaves as it is told: ``python fake_device.py FOLDER``.

``FOLDER/who`` counts the connections. What a device does is the name of a file in ``FOLDER/do``,
for the first one ``1-...``, and so on: ``die``, ``hang``, ``nonsense``, ``garbage``, ``mute``. It
does so at its second request, having answered the first.
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
            os.close(os.open(folder / "who" / str(number), os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            number += 1
    trouble = "".join(path.name for path in (folder / "do").glob(f"{number}-*")).partition("-")[2]
    if trouble == "mute":
        time.sleep(60)
    address = "one" if trouble == "same" else f"device-{number}"
    print(json.dumps({"machine": {}, "address": address}), flush=True)
    for place, line in enumerate(sys.stdin):
        request = json.loads(line)
        if place > 0 and trouble == "die":
            os._exit(3)
        if place > 0 and trouble == "hang":
            time.sleep(60)
        seconds: object = [[0.5] * request["repeat"] for _ in request["libraries"]]
        if place > 0 and trouble == "nonsense":
            seconds = [[-1.0]]
        if place > 0 and trouble == "garbage":
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
