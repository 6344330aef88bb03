"""The decode loop: which tokens it yields, when it ends, and what it leaves in the session."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from mvlm.runtime.decode_loop import DecodeLoop
from mvlm.runtime.errors import ContextError, PromptError
from mvlm.runtime.model import Model
from mvlm.runtime.sampling import SamplingParams
from mvlm.runtime.session import Session, Trace
from mvlm.runtime.tokenizer import IMAGE_TOKEN_ID
from tests.artifacts import ArtifactCache

IDS = [1, 17, 4, 250, 33]


@pytest.fixture(scope="module")
def model(artifact_cache: ArtifactCache) -> Model:
    return Model(artifact_cache.artifact("linear"))


def greedy(session: Session, count: int, eos: tuple[int, ...] = ()) -> list[int]:
    return list(DecodeLoop(session, IDS, (), SamplingParams(max_tokens=count), eos))


def test_greedy_tokens_are_those_of_whole_prefills(model: Model) -> None:
    """Each token is the best one after a prefill of all tokens before it."""
    tokens = greedy(Session(model), 8)
    assert len(tokens) == 8
    for number, token in enumerate(tokens):
        logits = Session(model).prefill([*IDS, *tokens[:number]]).logits
        assert token == int(logits.argmax())


def test_nothing_is_computed_before_the_first_token(model: Model) -> None:
    session = Session(model)
    loop = DecodeLoop(session, IDS, (), SamplingParams())
    tokens = iter(loop)
    assert (loop.prefill, session.cache.length) == (None, 0)
    next(tokens)
    assert loop.prefill is not None and loop.prefill.positions == len(IDS)
    assert session.cache.length == len(IDS)


def test_a_loop_that_is_left_decodes_no_further(model: Model) -> None:
    session = Session(model)
    left = list(islice(DecodeLoop(session, IDS, (), SamplingParams()), 3))
    assert session.cache.length == len(IDS) + 2  # the last token has not been decoded
    assert left == greedy(session, 3)


@pytest.mark.parametrize("number", [0, 1, 5])
def test_it_ends_after_an_end_of_sequence(model: Model, number: int) -> None:
    whole = greedy(Session(model), 8)
    end = whole[number]
    assert greedy(Session(model), 8, eos=(383, end)) == whole[: whole.index(end) + 1]


@pytest.mark.parametrize("free", [0, 1, 4])
def test_it_ends_where_the_cache_is_full(model: Model, free: int) -> None:
    """The last token takes no position: it is sampled, and not decoded."""
    session = Session(model, len(IDS) + free)
    assert greedy(session, 40) == greedy(Session(model), 1 + free)
    assert session.is_full


def test_images_are_encoded_and_take_their_places(model: Model) -> None:
    pixels = np.random.default_rng(0).standard_normal((1, 3, 28, 28), np.float32)
    ids, trace = [1, IMAGE_TOKEN_ID, 9, 12], Trace()
    params = SamplingParams(max_tokens=3)
    tokens = list(DecodeLoop(Session(model), ids, [pixels], params, trace=trace))
    arrays = trace.arrays()
    assert arrays["prompt_ids"].tolist() == ids
    np.testing.assert_array_equal(arrays["pixel_values"], pixels)
    assert arrays["step_logits"].argmax(-1).tolist() == tokens


@pytest.mark.parametrize("ids", [[], [1, IMAGE_TOKEN_ID, 9]])
def test_a_prompt_without_its_images_is_refused(model: Model, ids: list[int]) -> None:
    with pytest.raises(PromptError):
        list(DecodeLoop(Session(model), ids, (), SamplingParams()))


def test_a_prompt_over_the_capacity_is_refused(model: Model) -> None:
    with pytest.raises(ContextError):
        greedy(Session(model, len(IDS) - 1), 1)
