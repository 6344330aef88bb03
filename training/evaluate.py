"""How good a model is: held-out and out-of-distribution scenes, and a scorer. Imports no torch.

Any implementation of the model can be scored: `held_out_scenes` gives images, questions and
canonical answers, `is_right` judges an answer. `python -m mvlm.training.evaluate` scores the
exported checkpoint with the torch model (float32, and 4-bit decoder weights).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from mvlm.training.world.ood_renderer import ood_scene
from mvlm.training.world.questions import KINDS, ask_kind
from mvlm.training.world.render import random_longest, render
from mvlm.training.world.scene import random_scene
from mvlm.training.world.scoring import is_right

__all__ = ["Example", "held_out_scenes", "is_right", "ood_scenes", "score"]


# Seeds of the random numbers: with others, the scenes would not be those of the published figures.
_SEED_TEXTS = {"held out": "held out", "ood": "stranger"}


@dataclass(frozen=True)
class Example:
    """An image, a question of some kind about it and the canonical answer."""

    image: Image.Image
    question: str
    answer: str
    kind: str


def held_out_scenes(count: int, seed: int = 0) -> list[Example]:
    """`count` images that no training run draws, one question each, kinds in turn.

    Scenes come from the training generator with a stream of random numbers of their own, at sizes
    up to 2,000 pixels.
    """
    return _examples(count, seed, "held out")


def ood_scenes(count: int, seed: int = 0) -> list[Example]:
    """`count` images from the plain drawing code of `world.ood_renderer`, one question each."""
    return _examples(count, seed, "ood")


def _examples(count: int, seed: int, source: str) -> list[Example]:
    rng = np.random.default_rng([seed, 2, 1 if source == "ood" else 0])
    words = Random(f"{seed}/{_SEED_TEXTS[source]}")
    kinds = list(KINDS)
    examples: list[Example] = []
    while len(examples) < count:
        if source == "ood":
            scene, image = ood_scene(words)
        else:
            scene = random_scene(rng)
            longest = random_longest(scene, rng, 2000) if rng.random() < 0.5 else None
            image = render(scene, rng, longest)
        kind = kinds[len(examples) % len(kinds)]
        # A scene may not decide the kind whose turn it is; the next scene then gets that turn.
        attempts = (ask_kind(kind, scene, words) for _ in range(4))
        asked = next((question for question in attempts if question is not None), None)
        if asked is not None:
            examples.append(Example(image, asked.text, asked.answer, asked.kind))
    return examples


def score(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Right answers and questions by kind, with the sum under "all"."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for example, answer in zip(examples, answers, strict=True):
        hit = is_right(example.kind, example.answer, answer)
        for key in (example.kind, "all"):
            asked[key] += 1
            right[key] += hit
    return {key: (right[key], asked[key]) for key in asked}


def main() -> None:
    """Scores an exported checkpoint with torch."""
    import torch

    from mvlm.training.export import load
    from mvlm.training.generate import answers
    from mvlm.training.model.llama import quantize_4bit
    from mvlm.training.prompt import Prompter

    parser = argparse.ArgumentParser(prog="python -m mvlm.training.evaluate", description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", default=Path("models/bundled"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--errors", type=int, default=0, help="show so many wrong answers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tower, model, tokenizer = load(options.output)
    prompter = Prompter(tokenizer)
    sets = {
        "held out": held_out_scenes(options.count, options.seed),
        "ood": ood_scenes(options.count, options.seed),
    }
    for weights in ("float16", "4-bit"):
        if weights == "4-bit":
            for name, weight in model.named_parameters():
                if weight.dim() == 2 and "mm_projector" not in name:
                    weight.data = quantize_4bit(weight.data)
        for title, examples in sets.items():
            said = answers(
                tower, model, prompter, [e.image for e in examples],
                [prompter.prompt([], e.question) for e in examples],
            )  # fmt: skip
            _print(f"{title}, {weights} weights", examples, said, options.errors)


def _print(title: str, examples: Sequence[Example], said: Sequence[str], errors: int) -> None:
    result = score(examples, said)
    right, asked = result.pop("all")
    print(f"{title}: {right} of {asked} right, {100 * right / asked:.1f} %")
    print("  " + "  ".join(f"{kind} {100 * r / a:.0f}" for kind, (r, a) in result.items()))
    wrong = [
        f"  {e.kind}: {e.question} -> {answer} (expected: {e.answer})"
        for e, answer in zip(examples, said, strict=True)
        if not is_right(e.kind, e.answer, answer)
    ]
    print("\n".join(wrong[:errors]), end="\n" if errors else "")


if __name__ == "__main__":
    main()
