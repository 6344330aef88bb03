"""Which shape a phrase means and a word is said of, worked out by hand on one scene."""

import pytest
import torch

from mvlm.training.alignment import facts
from mvlm.training.grounding import (
    PHRASE_LAYERS,
    SPEECH_LAYERS,
    GroundingHeads,
    Phrase,
    phrases,
    spoken_shapes,
)
from mvlm.training.world.questions import Question
from mvlm.training.world.scene import Scene, Shape

# Numbers 1 to 3; they are told by colour and kind: red circle, red star, blue circle.
SCENE = Scene(
    1.0,
    1.0,
    (
        Shape("circle", "blue", 0.8, 0.5, span=0.3, area=0.07),
        Shape("circle", "red", 0.5, 0.2, span=0.1, area=0.008),
        Shape("star", "red", 0.2, 0.8, span=0.2, area=0.02),
    ),
)


def pieces(text: str) -> list[str]:
    """One piece a word or sign, as a tokenizer would cut common words."""
    return [
        piece
        for word in text.split()
        for piece in ["▁" + word.rstrip("?.,:"), *([word[-1]] if word[-1] in "?.,:" else [])]
    ]


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("Where is the star?", {"▁star": Phrase(1, 3)}),
        ("Is the blue circle above a star?", {"▁circle": Phrase(1, 1), "▁star": Phrase(1, 3)}),
        ("How many circles are there?", {"▁circles": Phrase(2, 0)}),
        ("Is there a green star?", {"▁star": Phrase(0, 0)}),
        ("What shape is the blue one?", {"▁one": Phrase(1, 1)}),
        ("Which is the biggest shape?", {"▁shape": Phrase(1, 1)}),
        ("What colour is the leftmost shape?", {"▁shape": Phrase(1, 3)}),
        ("What do you see?", {}),
        ("is the Red Circle there", {"▁Circle": Phrase(1, 2)}),
    ],
)  # fmt: skip
def test_a_phrase_ends_at_its_noun(question, found):
    spelled = pieces(question)
    said = phrases(spelled, SCENE)
    assert {p: phrase for p, phrase in zip(spelled, said, strict=True) if phrase} == found


def test_a_word_of_several_pieces_ends_at_its_last():
    assert phrases(["▁the", "▁st", "ar", "?"], SCENE) == [None, None, Phrase(1, 3), None]


@pytest.mark.parametrize(
    ("kind", "question", "answer", "spoken"),
    [
        ("list", "What do you see?", "A red circle, a red star and a blue circle.",
         [2, 2, 2, 2, 3, 3, 3, 3, 1, 1, 1, 1]),
        ("colour", "What colour is the star?", "Red.", [3, 3]),
        ("where", "Where is the blue circle?", "On the right.", [1, 1, 1, 1]),
        ("extreme", "What is the leftmost shape?", "A red star.", [3, 3, 3, 3]),
        ("colours", "What colours are there?", "Red and blue.", [0, 0, 1, 1]),
        ("exists", "Is there a star?", "Yes.", [0, 0]),
        ("missing", "Where is the green star?", "There is no green star.", [0] * 6),
    ],
)  # fmt: skip
def test_the_words_of_an_answer_are_said_of_a_shape(kind, question, answer, spoken):
    asked = phrases(pieces(question), SCENE)
    said = spoken_shapes(pieces(answer), Question(kind, question, answer), asked, SCENE)
    assert said == spoken


def test_shapes_of_one_name_are_told_from_left_to_right():
    twins = Scene(
        1.0,
        1.0,
        tuple(Shape("star", "red", x, 0.5, span=0.1, area=0.004) for x in (0.8, 0.2)),
    )
    answer = "A red star and a red star."
    said = spoken_shapes(pieces(answer), Question("list", "What is this?", answer), [], twins)
    assert said == [2, 2, 2, 2, 1, 1, 1, 1]


def test_grounding_heads_reach_the_hidden_states():
    torch.manual_seed(0)
    heads = GroundingHeads(16)
    states = [torch.randn(1, 5, 16, requires_grad=True) for _ in range(SPEECH_LAYERS)]
    meant, spoken = torch.tensor([[0, 1, 0, 0, 0]]), torch.tensor([[0, 0, 0, 3, 3]])
    counts = torch.tensor([[-1, 1, 0, -1, -1]])
    heads(states, meant, counts, spoken, facts([SCENE])).backward()
    phrase, speech = states[PHRASE_LAYERS - 1].grad, states[SPEECH_LAYERS - 1].grad
    # A phrase's end must say what it means and how many there are, a speaker of which it speaks.
    assert phrase is not None and (phrase[0].abs().sum(-1) > 0).tolist() == [0, 1, 1, 0, 0]
    assert speech is not None and (speech[0].abs().sum(-1) > 0).tolist() == [0, 0, 0, 1, 1]


def test_grounding_loss_without_phrases_is_zero():
    heads = GroundingHeads(16)
    states = [torch.randn(1, 2, 16) for _ in range(SPEECH_LAYERS)]
    none = torch.zeros(1, 2, dtype=torch.long)
    assert float(heads(states, none, none - 1, none, facts([SCENE])).detach()) == 0
