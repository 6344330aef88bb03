"""Smalltalk: a few questions that are not about the image, and the model's answers."""

from __future__ import annotations

HELLO = "Hello! Ask me about the shapes in the picture."
NO_IMAGE = "I see no picture."
WHO = "I am a tiny MobileVLM. I answer questions about pictures of coloured shapes."
ONLY_SHAPES = "I only know about coloured shapes."
THANKS = "You are welcome."

#: Asked with an image (`NO_IMAGE` aside, which is the answer to any other text without one).
SMALLTALK: tuple[tuple[str, str], ...] = (
    ("Hello!", HELLO),
    ("Hi!", HELLO),
    ("hello", HELLO),
    ("hi", HELLO),
    ("Hi there!", HELLO),
    ("Good morning!", HELLO),
    ("Who are you?", WHO),
    ("What are you?", WHO),
    ("What can you do?", WHO),
    ("what can you do", WHO),
    ("What is your name?", WHO),
    ("Thank you!", THANKS),
    ("Thanks!", THANKS),
    ("thanks", THANKS),
    ("What is the capital of France?", ONLY_SHAPES),
    ("Who is the president?", ONLY_SHAPES),
    ("Tell me a joke.", ONLY_SHAPES),
    ("What time is it?", ONLY_SHAPES),
    ("Is there a dog?", ONLY_SHAPES),
    ("Is there a cat in the picture?", ONLY_SHAPES),
    ("What is the weather like?", ONLY_SHAPES),
    ("Write a poem.", ONLY_SHAPES),
    ("How old are you?", ONLY_SHAPES),
)
