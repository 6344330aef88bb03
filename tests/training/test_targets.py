"""What the tower and the projector are asked to say about an image, worked out by hand."""

import pytest
import torch

from mvlm.training.alignment import CONCEPTS, TokenReader, alignment_loss, facts
from mvlm.training.image_store import CELLS, GRID, ImageBatch, shares
from mvlm.training.tower_pretraining import (
    PatchHead,
    patch_targets,
    pretraining_loss,
    pretraining_scores,
)
from mvlm.training.world.scene import MAX_SHAPES, Scene, Shape

TOKENS = GRID // 2


def two_shapes() -> ImageBatch:
    """A big red circle at the top left and a small blue star at the bottom right, on 2 : 1."""
    circle = Shape("circle", "red", 0.25, 0.375, span=0.3, area=0.07)
    star = Shape("star", "blue", 0.875, 0.625, span=0.1, area=0.004)
    labels = torch.zeros(1, CELLS, CELLS, dtype=torch.long)
    labels[0, 10:16, 6:12] = 1
    labels[0, 21:24, 30:33] = 2
    side = 144
    return ImageBatch(
        torch.zeros(1, 3, side, side),
        labels,
        torch.zeros(1, GRID, GRID, 3),
        [Scene(1.0, 0.5, (circle, star))],
    )


def test_patch_targets_are_the_shapes_under_them():
    wanted = patch_targets(two_shapes())
    circle, star, ground = 4 * GRID + 3, 7 * GRID + 10, 0
    assert wanted["shape"][0, [circle, star, ground]].tolist() == [1, 4, 0]
    assert wanted["colour"][0, [circle, star, ground]].tolist() == [1, 3, 0]
    # Leftmost, rightmost, topmost, bottommost, biggest, smallest.
    assert wanted["rank"][0, circle].tolist() == [1, 0, 1, 0, 1, 0]
    assert wanted["rank"][0, star].tolist() == [0, 1, 0, 1, 0, 1]
    assert wanted["order"][0, [circle, star]].tolist() == [0, 1]
    # The square's x and y, then the image's own, which is half as high: all times four.
    assert wanted["geometry"][0, circle, :4].tolist() == [-1.0, -0.5, -1.0, -1.0]
    assert wanted["count"].tolist() == [2]


def test_patch_targets_weigh_shapes_alike():
    batch = two_shapes()
    owners = batch.owners(GRID)
    weights = shares(owners)
    assert (owners == 1).sum() > (owners == 2).sum() > 0
    for shape, weight in ((0, 0), (1, 1), (2, 1)):
        assert float(weights[owners == shape].sum()) == pytest.approx(weight)


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
    batch = two_shapes()
    true = facts(batch.scenes).at(batch.owners(TOKENS))
    words = {token: {w for w, t in zip(CONCEPTS, true.concepts[0, token], strict=True) if t}
             for token in range(TOKENS**2)}  # fmt: skip
    circle, star = 2 * TOKENS + 1, 3 * TOKENS + 5
    assert {names[0] for names in words[circle]} == {
        "circle", "red", "leftmost", "topmost", "biggest", "top", "left",
    }  # fmt: skip
    assert {names[0] for names in words[star]} == {
        "star", "blue", "rightmost", "lowest", "smallest", "bottom", "right",
    }  # fmt: skip
    assert true.order[0, [circle, star]].tolist() == [0, 1]
    assert true.geometry[0, circle, :4].tolist() == [-1.0, -0.5, -1.0, -1.0]
    assert not words[0] and not true.known[0, 0] and true.known[0, circle]


def said_of(true, reader, right):
    """What a reader would say that is sure, and right or wrong."""
    sign = 1 if right else -1
    words = sign * (true.concepts[..., reader.concepts].float() * 20 - 10)
    order = sign * 20 * torch.nn.functional.one_hot(true.order, MAX_SHAPES).float()
    return words, sign * true.geometry, order


@pytest.mark.parametrize("right", [True, False])
def test_alignment_loss_falls_as_tokens_come_to_say_what_they_show(prompter, right):
    torch.manual_seed(0)
    reader, batch = TokenReader(prompter, 64), two_shapes()
    # The names of shapes and colours, at least, are pieces even in a tokenizer of few questions.
    assert set(reader.concepts) >= set(range(10))
    known = facts(batch.scenes)
    said = said_of(known.at(batch.owners(TOKENS)), reader, right)
    loss, scores = alignment_loss(reader, said, batch, known)
    if right:
        assert loss < 0.01 and scores == {"words": 1, "off": 0}
    else:
        assert loss > 100 and scores["words"] == 0 and scores["off"] > 1


def test_every_part_of_the_alignment_reaches_the_token(prompter):
    torch.manual_seed(0)
    reader, batch = TokenReader(prompter, 64), two_shapes()
    tokens = torch.randn(1, TOKENS**2, 64, requires_grad=True)
    embeddings = torch.randn(800, 64, requires_grad=True)
    loss, _ = alignment_loss(reader, reader(tokens, embeddings), batch, facts(batch.scenes))
    loss.backward()
    for weight in (tokens, embeddings, reader.numbers.weight):
        assert weight.grad is not None and weight.grad.abs().sum() > 0


def test_alignment_reader_finds_a_word_in_a_token(prompter):
    torch.manual_seed(0)
    reader, embeddings = TokenReader(prompter, 64), torch.randn(800, 64)
    piece = prompter.pieces.piece_to_id("▁red")
    words, _, _ = reader(embeddings[piece][None, None], embeddings)
    assert reader.pieces[int(words[0, 0].argmax())] == piece
