"""What the tower and the projector are asked to say about a picture, worked out by hand."""

import pytest
import torch

from mvlm.training.alignment import CONCEPTS, WordMatcher, true_concepts, word_loss
from mvlm.training.pictures import CELLS, GRID, PictureBatch
from mvlm.training.tower_pretraining import (
    PatchHead,
    patch_targets,
    pretraining_loss,
    pretraining_scores,
)
from mvlm.training.world.scene import Scene, Shape

TOKENS = GRID // 2


def two_shapes() -> PictureBatch:
    """A big red circle at the top left and a small blue star at the bottom right, on 2 : 1."""
    circle = Shape("circle", "red", 0.25, 0.375, span=0.3, area=0.07)
    star = Shape("star", "blue", 0.875, 0.625, span=0.1, area=0.004)
    labels = torch.zeros(1, CELLS, CELLS, dtype=torch.long)
    labels[0, 10:16, 6:12] = 1
    labels[0, 21:24, 30:33] = 2
    side = 144
    return PictureBatch(
        torch.zeros(1, 3, side, side),
        labels,
        torch.zeros(1, GRID, GRID, 3),
        [Scene(1.0, 0.5, (circle, star))],
    )


def test_patches_say_what_lies_under_them():
    wanted = patch_targets(two_shapes())
    circle, star, ground = 4 * GRID + 3, 7 * GRID + 10, 0
    assert wanted["shape"][0, [circle, star, ground]].tolist() == [1, 4, 0]
    assert wanted["colour"][0, [circle, star, ground]].tolist() == [1, 3, 0]
    # Leftmost, rightmost, topmost, bottommost, biggest, smallest.
    assert wanted["rank"][0, circle].tolist() == [1, 0, 1, 0, 1, 0]
    assert wanted["rank"][0, star].tolist() == [0, 1, 0, 1, 0, 1]
    assert wanted["order"][0, [circle, star]].tolist() == [0, 1]
    # The square's x and y, then the picture's own, which is half as high: all times four.
    assert wanted["geometry"][0, circle, :4].tolist() == [-1.0, -0.5, -1.0, -1.0]
    assert wanted["count"].tolist() == [2]


def test_a_perfect_head_scores_full_marks():
    wanted = patch_targets(two_shapes())
    said = {
        part: torch.nn.functional.one_hot(wanted[part], classes).float() * 9
        for part, classes in (("shape", 5), ("colour", 7), ("order", 4), ("count", 5))
    } | {"rank": wanted["rank"] * 2 - 1}
    assert pretraining_scores(said, wanted) == dict.fromkeys(
        ("count", "rank", "shape", "colour", "order"), 1.0
    )


def test_every_part_of_the_tower_loss_reaches_the_features():
    wanted = patch_targets(two_shapes())
    head = PatchHead(8)
    features = torch.randn(1, GRID**2, 8, generator=torch.manual_seed(0), requires_grad=True)
    pretraining_loss(head(features), wanted).backward()
    for weight in (head.patch.weight, head.whole.weight, features):
        assert weight.grad is not None and weight.grad.abs().sum() > 0


def test_image_tokens_are_named_by_the_words_that_are_true_of_them():
    true, shown = true_concepts(two_shapes())
    words = {token: {w for w, t in zip(CONCEPTS, true[0, token], strict=True) if t}
             for token in range(TOKENS**2)}  # fmt: skip
    circle, star = 2 * TOKENS + 1, 3 * TOKENS + 5
    assert {names[0] for names in words[circle]} == {
        "circle", "red", "leftmost", "topmost", "biggest", "top", "left",
    }  # fmt: skip
    assert {names[0] for names in words[star]} == {
        "star", "blue", "rightmost", "lowest", "smallest", "bottom", "right",
    }  # fmt: skip
    assert not words[0] and not shown[0, 0] and shown[0, circle]


@pytest.mark.parametrize("right", [True, False])
def test_word_loss_falls_as_tokens_come_to_resemble_their_words(prompter, right):
    torch.manual_seed(0)
    matcher, batch = WordMatcher(prompter), two_shapes()
    # The names of shapes and colours, at least, are pieces even in a tokenizer of few questions.
    assert set(matcher.concepts) >= set(range(10))
    true, _ = true_concepts(batch)
    signs = (true[..., matcher.concepts] == right).float() * 20 - 10
    loss, share = word_loss(matcher, signs, batch)
    assert (loss < 0.01 and share == 1) if right else (loss > 100 and share == 0)


def test_the_matcher_finds_a_word_in_a_token(prompter):
    torch.manual_seed(0)
    matcher, embeddings = WordMatcher(prompter), torch.randn(800, 64)
    piece = prompter.pieces.piece_to_id("▁red")
    logits = matcher(embeddings[piece][None, None], embeddings)
    assert matcher.pieces[int(logits[0, 0].argmax())] == piece
