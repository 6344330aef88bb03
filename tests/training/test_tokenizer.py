"""The tokenizer has LLaMA's conventions, and training ids are the ids of the official prompt."""

from random import Random

import numpy as np

from mvlm.training.prompt import BOS, EOS, IMAGE, SYSTEM
from mvlm.training.world.questions import ask
from mvlm.training.world.scene import random_scene


def pieces(prompter, ids):
    return [prompter.pieces.id_to_piece(i) for i in ids]


def test_special_ids_are_llamas(prompter):
    processor = prompter.pieces
    assert [processor.id_to_piece(i) for i in range(3)] == ["<unk>", "<s>", "</s>"]
    assert (processor.unk_id(), processor.bos_id(), processor.eos_id()) == (0, BOS, EOS)
    assert processor.id_to_piece(3) == "<0x00>"
    assert processor.is_byte(3)


def test_the_pieces_around_the_image(prompter):
    assert pieces(prompter, prompter.before_image())[-3:] == ["▁USER", ":", "▁"]
    after = pieces(prompter, prompter.first_turn("What colour is the circle?"))
    assert after[:3] == ["▁", "<0x0A>", "What"]
    assert after[-2:] == ["▁ASSISTANT", ":"]
    assert pieces(prompter, prompter.next_turn("And now?"))[0] == "▁USER"


def test_answers_are_the_ids_that_follow_the_prompt(prompter):
    rng, words = np.random.default_rng(0), Random(0)
    for _ in range(300):
        asked = ask(random_scene(rng), words)
        prompt = prompter.encode(f"\n{asked.text} ASSISTANT:")
        whole = prompter.encode(f"\n{asked.text} ASSISTANT: {asked.answer}")
        assert whole == prompt + prompter.answer(asked.answer)[:-1]
        assert prompter.decode(prompter.answer(asked.answer)) == asked.answer


def test_a_prompt_is_what_the_official_code_builds(prompter):
    ids = prompter.prompt([("What is it?", "A circle.")], "Which colour?")
    at = ids.index(IMAGE)
    encode = prompter.pieces.encode
    assert ids[:at] == [BOS, *encode(f"{SYSTEM} USER: ")]
    after = "\nWhat is it? ASSISTANT: A circle."
    assert ids[at + 1 :] == [*encode(after), EOS, *encode("USER: Which colour? ASSISTANT:")]


def test_any_text_survives(prompter):
    for text in ("Grüße, 世界 🙂", "two  spaces", "tab\tand\nline"):
        assert prompter.pieces.decode(list(prompter.encode(text))) == text
