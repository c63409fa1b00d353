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


def as_rows(ratings):
    """Return the ratings as users by items, NaN where unrated."""
    return ratings.pivot(index="user", columns="item", values="rating").to_numpy()


@pytest.mark.parametrize("n_components", [4, 50])
def test_row_24_a_prediction_has_no_neighbours(model, ratings, n_components):
    """Bit for bit the same alone, in any order and in any batch."""
    model.set_params(n_components=n_components).fit(ratings)
    expected = predicted(model, ratings)
    for size in (1, 3, 64):
        parts = [ratings[i : i + size] for i in range(0, len(ratings), size)]
        batched = np.concatenate([predicted(model, part) for part in parts])
        np.testing.assert_array_equal(batched, expected)
    turned = predicted(model, ratings[::-1])
    np.testing.assert_array_equal(turned, expected[::-1])


@pytest.mark.parametrize("name", ["predict", "energy", "transform"])
def test_row_24_rows_of_new_users_have_no_neighbours(model, ratings, name):
    rows = as_rows(ratings)
    read = getattr(model.set_params(n_components=50).fit(rows), name)
    expected = read(rows)
    alone = [read(rows[i : i + 1]) for i in range(len(rows))]
    np.testing.assert_array_equal(np.concatenate(alone), expected)
    np.testing.assert_array_equal(read(rows[::-1]), expected[::-1])
