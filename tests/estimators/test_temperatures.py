"""Temperatures found from scores whose temperature is known."""

import numpy as np
import pytest
import torch

from skebm.estimators.temperatures import consistent_temperature


def drawn(temperature, n=200_000):
    """Scores s, and labels drawn from softmax(s / temperature)."""
    rng = np.random.default_rng(0)
    scores = 3 * rng.normal(size=(n, 4))
    p = torch.from_numpy(scores / temperature).softmax(1).numpy()
    codes = (p.cumsum(1) < rng.random((n, 1))).sum(1)
    return torch.from_numpy(scores), codes, np.ones(n)


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_temperature_of_the_draws_is_found(truth):
    assert consistent_temperature(*drawn(truth)) == pytest.approx(truth, rel=0.02)


def test_weight_of_zero_is_no_row():
    scores, codes, weights = drawn(1.0, 2000)
    noise = np.arange(2000) % 2 == 0
    kept = consistent_temperature(scores[~noise], codes[~noise], weights[~noise])
    codes[noise] = 0
    weights[noise] = 0.0
    found = consistent_temperature(scores, codes, weights)
    assert found == pytest.approx(kept, rel=1e-3)


def test_few_rows_without_an_error_are_not_certain():
    """Ten of ten right count as 11 of 12."""
    scores = torch.tensor([[2.0, 0.0]] * 10, dtype=torch.float64)
    t = consistent_temperature(scores, np.zeros(10, dtype=int), np.ones(10))
    assert torch.softmax(scores[0] / t, 0)[0] == pytest.approx(11 / 12)


def test_scores_without_meaning_are_as_hot_as_it_gets():
    scores = torch.tensor([[9.0, 0.0]] * 100, dtype=torch.float64)
    codes = np.arange(100) % 2
    assert consistent_temperature(scores, 1 - codes * 0, np.ones(100)) == 20.0
