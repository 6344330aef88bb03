"""Draws the scenes that calibration uses by default: `python -m mvlm.training.calibration_scenes`.

Conversations in LLaVA's format about images of the world, drawn as those for training but with a
seed of their own, so that none of them was seen in training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from mvlm.training.world.questions import Question, ask
from mvlm.training.world.render import render
from mvlm.training.world.scene import Scene, random_scene

SCENES = 48
SEED = 21
_QUESTIONS = (4, 8)


def write(folder: Path, scenes: int = SCENES) -> None:
    """Writes `scenes.json` and the PNG files that it names."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng, words = np.random.default_rng([SEED, 5]), Random(f"{SEED}/calibration")
    entries = []
    for index in range(scenes):
        scene = random_scene(rng)
        name = f"images/{index:02}.png"
        render(scene, rng).save(folder / name, optimize=True)
        entries.append(_entry(f"scene-{index:02}", name, _questions(scene, words)))
    text = json.dumps(entries, indent=1)
    (folder / "scenes.json").write_text(text + "\n", encoding="utf-8")


def _questions(scene: Scene, words: Random) -> list[Question]:
    """Asks different questions about a scene."""
    asked: dict[str, Question] = {}
    for _ in range(words.randint(*_QUESTIONS)):
        question = ask(scene, words)
        asked[question.text] = question
    return list(asked.values())


def _entry(name: str, image: str, questions: list[Question]) -> dict[str, Any]:
    turns = []
    for index, question in enumerate(questions):
        text = question.text if index else f"<image>\n{question.text}"
        turns += [{"from": "human", "value": text}, {"from": "gpt", "value": question.answer}]
    return {"id": name, "image": image, "conversations": turns}


def main() -> None:
    """Parses the command line and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path("compile/calibration_data/default")
    parser.add_argument("folder", type=Path, nargs="?", default=default)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
