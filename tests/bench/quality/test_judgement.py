"""Figures of small models, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvlm.bench.quality.judgement import (
    divergence,
    judge,
    log_softmax,
    read_logits,
    write_logits,
)

# Two sequences of three ids of a vocabulary of two.
SEQUENCES = np.array([[0, 1, 1], [1, 0, 1]], np.int64)


def logits_of(chance: float) -> np.ndarray:
    """The logits (3, 2) of a model that gives id 1 the same chance everywhere."""
    return np.log(np.array([[1 - chance, chance]] * 3, np.float32))


def test_log_softmax_of_large_logits_does_not_overflow() -> None:
    found = log_softmax(np.array([[1e4, 1e4], [0.0, np.log(3.0)]], np.float32))
    assert np.allclose(found, np.log([[0.5, 0.5], [0.25, 0.75]]))


def test_a_large_vocabulary_loses_no_precision() -> None:
    exact = np.random.default_rng(0).normal(0, 4, (8, 49_152)).astype(np.float32)
    logits = exact + np.random.default_rng(1).normal(3, 1e-2, exact.shape).astype(np.float32)
    left, right = log_softmax(exact), log_softmax(logits)
    expected = (np.exp(left) * (left - right)).sum(axis=-1).mean()
    assert expected < 1e-4 and divergence(exact, logits) == pytest.approx(expected, abs=1e-7)


def test_divergence_of_two_coins_is_known() -> None:
    # KL(1/2 || 1/4) = 1/2 ln 2 + 1/2 ln 2/3
    expected = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert divergence(logits_of(0.5), logits_of(0.25)) == pytest.approx(expected, rel=1e-6)
    assert divergence(logits_of(0.5), logits_of(0.5)) == pytest.approx(0, abs=1e-7)


def test_judgement_is_that_worked_out_by_hand() -> None:
    exact = [logits_of(0.75)[:-1]] * 2
    found = judge(SEQUENCES, exact, lambda ids: logits_of(0.25))
    # Next ids are 1, 1, 0, 1: three with chance 1/4, one with 3/4.
    assert found.perplexity == pytest.approx((4**3 * 4 / 3) ** (1 / 4), rel=1e-6)
    # KL(3/4 || 1/4) = 3/4 ln 3 - 1/4 ln 3
    assert found.divergence == pytest.approx(0.5 * np.log(3), rel=1e-6)
    assert found.same_top == 0


def test_float32_itself_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "logits.npy"
    write_logits(SEQUENCES, lambda ids: logits_of(0.75), file)
    found = judge(SEQUENCES, read_logits(file), lambda ids: logits_of(0.75))
    assert found.divergence == pytest.approx(0, abs=1e-7) and found.same_top == 1


def test_each_sequence_is_compared_with_its_own_reference(tmp_path: Path) -> None:
    file = tmp_path / "logits.npy"

    def model(ids: list[int]) -> np.ndarray:
        return logits_of(0.75 if ids[0] else 0.25)

    write_logits(SEQUENCES, model, file)
    assert np.load(file).shape == (2, 2, 2)
    found = judge(SEQUENCES, read_logits(file), model)
    # Chances 1/4 and 1/4 of the first sequence's next ids, 1/4 and 3/4 of the second's.
    assert found.perplexity == pytest.approx((4**2 * 4 * 4 / 3) ** (1 / 4), rel=1e-6)
    assert found.divergence == pytest.approx(0, abs=1e-7) and found.same_top == 1


def test_references_of_fewer_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        judge(SEQUENCES, [logits_of(0.5)[:-1]], lambda ids: logits_of(0.5))
