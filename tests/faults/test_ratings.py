"""Faults of rating tables: RatingRBM, which takes no table of features."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skebm import RatingRBM
from skebm.exceptions import DivergenceError


@pytest.fixture
def model():
    return RatingRBM(4, max_iter=5, random_state=0)


@pytest.fixture
def ratings():
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, [20, 10], (150, 2)), axis=0)
    columns = [*pairs.T, rng.integers(1, 6, len(pairs)).astype(float)]
    return pd.DataFrame(dict(zip(["user", "item", "rating"], columns, strict=True)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_row_01_a_rating_that_is_no_number(model, ratings, value):
    ratings.loc[3, "rating"] = value
    with pytest.raises(ValueError, match=r"NaN|infinity|finite"):
        model.fit(ratings)


def test_row_14_no_ratings(model, ratings):
    with pytest.raises(ValueError, match="at least one rating"):
        model.fit(ratings[:0])


def test_row_19_a_diverging_learning_rate(model, ratings):
    with pytest.raises(DivergenceError, match="learning_rate"):
        model.set_params(learning_rate=1e30).fit(ratings)


@pytest.mark.parametrize("params", [{"max_iter": -3}, {"learning_rate": -1.0}])
def test_row_20_bad_parameters(model, ratings, params):
    with pytest.raises(ValueError, match=next(iter(params))):
        model.set_params(**params).fit(ratings)


def test_row_21_predict_before_fit(model, ratings):
    with pytest.raises(NotFittedError):
        model.predict(ratings)


def predicted(model, ratings):
    return model.predict(ratings["user"], ratings["item"])


def test_row_22_one_seed_gives_the_same_bits(model, ratings):
    expected = predicted(model.fit(ratings), ratings)
    for again in (model, clone(model)):
        np.testing.assert_array_equal(predicted(again.fit(ratings), ratings), expected)


def test_row_24_a_prediction_has_no_neighbours_but_for_rounding(model, ratings):
    expected = predicted(model.fit(ratings), ratings)
    alone = [predicted(model, ratings[i : i + 1]) for i in range(20)]
    np.testing.assert_allclose(np.concatenate(alone), expected[:20], rtol=1e-12)
    turned = predicted(model, ratings[::-1])
    np.testing.assert_allclose(turned, expected[::-1], rtol=1e-12)
