"""Sampling: scores equal to transformers, the right distribution, the same answer for a seed."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mvlm.runtime.errors import MvlmError, UsageError
from mvlm.runtime.sampling import Sampler, SamplingParams, log_probabilities, process


def random_logits(vocab: int, seed: int, scale: float = 4.0) -> npt.NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(0, scale, vocab)
    return values.astype(np.float32)


def scores_of_transformers(
    logits: npt.NDArray[np.float32], history: list[int], params: SamplingParams
) -> npt.NDArray[np.float32]:
    """The processors of ``generate`` in its order; each is left out where it is off."""
    steps = LogitsProcessorList()
    if params.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    steps.append(TemperatureLogitsWarper(float(params.temperature)))
    if params.top_k:
        steps.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(TopPLogitsWarper(params.top_p))
    ids, scores = torch.LongTensor([history]), torch.FloatTensor(logits[None])
    result: npt.NDArray[np.float32] = steps(ids, scores)[0].numpy()
    return result


@settings(max_examples=200, deadline=None)
@given(
    vocab=st.integers(1, 300),
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.05, 0.2, 0.7, 1.0, 1.5, 10.0]),
    top_p=st.sampled_from([0.0, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0]),
    top_k=st.sampled_from([0, 1, 2, 10, 299, 1000]),
    penalty=st.sampled_from([0.5, 1.0, 1.1, 2.0]),
    repeats=st.integers(0, 20),
)
def test_scores_equal_transformers(
    vocab: int,
    seed: int,
    temperature: float,
    top_p: float,
    top_k: int,
    penalty: float,
    repeats: int,
) -> None:
    params = SamplingParams(temperature, top_p, top_k, penalty)
    logits = random_logits(vocab, seed)
    history = np.random.default_rng(seed).integers(0, vocab, repeats).tolist()
    ours = process(logits, history, params)
    theirs = scores_of_transformers(logits, history, params)
    np.testing.assert_array_equal(np.isneginf(ours), np.isneginf(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_nucleus_boundary_is_that_of_transformers() -> None:
    # Probabilities 1/2, 1/4, 1/8, 1/8: exact in binary, so the boundary is hit exactly.
    logits = np.log2(np.array([4, 2, 1, 1], dtype=np.float32)) * np.log(2, dtype=np.float32)
    kept = {
        top_p: int(np.isfinite(process(logits, [], SamplingParams(1.0, top_p))).sum())
        for top_p in (0.0, 0.4, 0.6, 0.74, 0.76, 0.88)
    }
    assert kept == {0.0: 1, 0.4: 1, 0.6: 2, 0.74: 2, 0.76: 3, 0.88: 4}


def test_equal_scores_keep_the_lowest_ids_in_the_nucleus() -> None:
    scores = process(np.zeros(10, np.float32), [], SamplingParams(1.0, top_p=0.35))
    assert np.flatnonzero(np.isfinite(scores)).tolist() == [0, 1, 2, 3]


def test_equal_scores_are_all_in_the_top_k() -> None:
    scores = process(np.zeros(10, np.float32), [], SamplingParams(1.0, top_k=3))
    assert np.isfinite(scores).all()


def test_greedy_takes_the_lowest_of_equals() -> None:
    logits = np.array([1, 5, 2, 5, 5], dtype=np.float32)
    assert Sampler(SamplingParams()).sample(logits) == 1


def test_greedy_ignores_top_k_and_top_p_but_not_the_penalty() -> None:
    logits = np.array([3, 2, -1], dtype=np.float32)
    params = SamplingParams(top_k=1, top_p=0.1, repetition_penalty=2.0)
    assert Sampler(params).sample(logits, [0, 0, 0]) == 1
    assert Sampler(params).sample(-logits, [2]) == 2


def test_penalty_passes_over_images_and_unknown_ids() -> None:
    logits = random_logits(10, 0)
    params = SamplingParams(repetition_penalty=1.5)
    np.testing.assert_array_equal(
        process(logits, [1, -200, 3, 10, 10**9], params), process(logits, [1, 3], params)
    )


def test_presence_and_frequency_penalties_are_of_the_answer_alone() -> None:
    logits = random_logits(10, 3)
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=-0.25)
    found = process(logits, [1, 2, 7, 7, 7, 4], params, [7, 7, 7, 4])
    expected = logits.astype(np.float64)
    expected[7] -= 0.5 - 3 * 0.25
    expected[4] -= 0.5 - 0.25
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(process(logits, [7, 4], params), logits.astype(np.float64))


def test_a_bias_is_added_before_the_temperature() -> None:
    logits = random_logits(10, 4)
    params = SamplingParams(temperature=0.5, logit_bias=((2, 3.0), (9, -100.0), (10**6, 5.0)))
    found = process(logits, [], params)
    expected = logits.astype(np.float64)
    expected[[2, 9]] += [3.0, -100.0]
    np.testing.assert_allclose(found, expected / 0.5, rtol=1e-12)
    assert Sampler(SamplingParams(logit_bias=((6, 100.0),))).sample(logits) == 6


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_log_probabilities_are_those_of_torch(size: int) -> None:
    logits = 30 * random_logits(size, 5)
    expected = torch.log_softmax(torch.from_numpy(logits).double(), 0).numpy()
    np.testing.assert_allclose(log_probabilities(logits), expected, rtol=0, atol=1e-10)


def test_logits_are_left_as_they_are() -> None:
    logits = random_logits(50, 0)
    before = logits.copy()
    Sampler(SamplingParams(0.5, 0.5, 5, 1.3)).sample(logits, [1, 2])
    np.testing.assert_array_equal(logits, before)


def test_the_same_seed_gives_the_same_tokens() -> None:
    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingParams(1.0, seed=seed))
        return [sampler.sample(random_logits(1000, step)) for step in range(20)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)


# Upper 0.1 % points of the chi-square distribution, by degrees of freedom.
CHI_SQUARE = {3: 16.27, 7: 24.32}


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, 8), ({"temperature": 2.0}, 8), ({"top_k": 4}, 4), ({"top_p": 0.9}, 4)],
)
def test_tokens_are_drawn_by_their_probabilities(options: dict[str, Any], kept: int) -> None:
    logits = np.array([2.0, 1.5, 1.0, 0.5, -1.0, -1.5, -1.2, -1.1], dtype=np.float32)
    params = SamplingParams(**({"temperature": 1.0, "seed": 3} | options))
    sampler, draws = Sampler(params), 20_000
    counts = np.bincount([sampler.sample(logits) for _ in range(draws)], minlength=8)
    scores = torch.from_numpy(scores_of_transformers(logits, [], params))
    expected = torch.softmax(scores.double(), 0).numpy() * draws
    assert (counts[expected == 0] == 0).all()
    assert np.count_nonzero(expected) == kept
    possible = expected > 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert statistic < CHI_SQUARE[kept - 1]


def test_extreme_logits_and_temperatures_do_not_overflow() -> None:
    logits = np.array([3e38, -3e38, 0], dtype=np.float32)
    for temperature in (1e-6, 100.0):
        assert Sampler(SamplingParams(temperature, 0.9, seed=0)).sample(logits) == 0


def test_one_token_is_a_vocabulary() -> None:
    assert Sampler(SamplingParams(1.0, 0.5, 3, 1.2)).sample(np.zeros(1, np.float32), [0]) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_refused(value: float, temperature: float) -> None:
    logits = random_logits(10, 0)
    logits[4] = value
    with pytest.raises(MvlmError, match="found 1 NaN or infinity, the first at token 4"):
        Sampler(SamplingParams(temperature)).sample(logits)


@pytest.mark.parametrize("shape", [(0,), (1, 10), ()])
def test_logits_must_be_a_vector(shape: tuple[int, ...]) -> None:
    with pytest.raises(MvlmError, match="logits"):
        Sampler(SamplingParams()).sample(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 1e-9),
        ("temperature", 101),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", None),
        ("top_p", -0.1),
        ("top_p", 1.1),
        ("top_p", float("nan")),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_k", True),
        ("repetition_penalty", 0),
        ("repetition_penalty", float("inf")),
        ("seed", -1),
        ("seed", 0.5),
        ("presence_penalty", 2.1),
        ("frequency_penalty", float("nan")),
        ("logit_bias", ((1, 101.0),)),
        ("logit_bias", ((-1, 1.0),)),
        ("logit_bias", tuple((each, 1.0) for each in range(1025))),
        ("max_tokens", 0),
        ("max_tokens", None),
        ("stop", "</s>"),
        ("stop", ("",)),
        ("stop", ("a",) * 17),
        ("stop", ("a" * 257,)),
        ("stop", (1,)),
    ],
)
def test_wrong_options_are_named(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^{name}: expected .*, found "):
        SamplingParams(**{name: value})  # type: ignore[arg-type]


def test_numpy_numbers_are_numbers() -> None:
    params = SamplingParams(np.float32(0.5), top_k=np.int64(3), seed=np.int64(1))
    assert Sampler(params).sample(random_logits(5, 0)) in range(5)
