"""The SentencePiece model of the small world, with LLaMA's settings and special ids.

Its corpus is a sample of questions and answers, so that most words are one piece.
"""

from __future__ import annotations

import string
from random import Random

import numpy as np

from mvlm.models.synthetic.tokenizer import train_llama_tokenizer
from mvlm.training.prompt import SYSTEM
from mvlm.training.smalltalk import SMALLTALK
from mvlm.training.world.questions import ask
from mvlm.training.world.scene import random_scene

VOCABULARY = 800
SAMPLES = 12_000


def corpus(seed: int) -> list[str]:
    """Lines of text as they occur in prompts and answers."""
    rng, words = np.random.default_rng([seed, 3]), Random(f"{seed}/tokenizer")
    lines = [f"{SYSTEM} USER: ASSISTANT:"] * 200
    for index in range(SAMPLES):
        asked = ask(random_scene(rng), words)
        lines.append(f"USER: {asked.text} ASSISTANT: {asked.answer}")
        # The first question follows a newline, not a space, so its first word needs a piece
        # without the leading "▁": any symbol in front makes SentencePiece count that.
        lines.append(f"({asked.text}" if index % 2 else f"({asked.text.capitalize()}")
    for question, answer in SMALLTALK:
        lines += [f"USER: {question} ASSISTANT: {answer}"] * 10
    letters = string.ascii_letters + string.digits + string.punctuation
    lines += [" ".join(letters), "".join(letters)] * 20
    return lines


def train_tokenizer(seed: int) -> bytes:
    """Trains the model and returns the bytes of `tokenizer.model`."""
    return train_llama_tokenizer(iter(corpus(seed)), VOCABULARY, exactly=False)
