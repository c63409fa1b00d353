"""RatingRBM: planted preferences, exact conditionals, and every form of ratings."""

import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array, csr_matrix
from sklearn.metrics import ndcg_score, r2_score

from skebm import RatingRBM
from skebm.exceptions import DataDomainError


def planted(n=120, d=80, share=0.35, seed=0):
    """Return true stars of rank-five preferences, and which are rated."""
    rng = np.random.default_rng(seed)
    like = rng.normal(size=(n, 5)) @ rng.normal(size=(5, d))
    stars = 1 + np.searchsorted(np.quantile(like, [0.2, 0.4, 0.6, 0.8]), like)
    return stars.astype(float), rng.random((n, d)) < share


@pytest.fixture(scope="module")
def stars():
    return planted()


@pytest.fixture(scope="module")
def model(stars):
    table, rated = stars
    X = np.where(rated, table, np.nan)
    return RatingRBM(20, random_state=0).fit(X)


@pytest.fixture(scope="module")
def small():
    """Forty users, six items, few levels: quick to fit in many forms."""
    table, rated = planted(40, 6, 0.7)
    rated[:, 0] |= ~rated.any(1)
    return np.where(rated, table, np.nan)


def tiny(**params):
    return RatingRBM(**{"n_components": 4, "max_iter": 15, "random_state": 0} | params)


def long(X):
    user, item = np.nonzero(~np.isnan(X))
    return pd.DataFrame({"user": user, "item": item, "rating": X[user, item]})


def test_planted_preferences_are_ranked(model, stars):
    table, rated = stars
    user, item = np.indices(table.shape).reshape(2, -1)
    expected = model.predict(user, item).reshape(table.shape)
    found = [
        ndcg_score([t[~r] - 1], [e[~r]], k=10)
        for t, e, r in zip(table, expected, rated, strict=True)
    ]
    assert np.mean(found) >= 0.95
    error = np.square(expected - table)[~rated].mean()
    assert error < 0.35 * table[~rated].var()


def test_new_users_are_ranked_from_their_ratings(model):
    """Fresh users of the same items; their machine saw none of their ratings."""
    rng = np.random.default_rng(0)
    rng.normal(size=(120, 5))
    traits = rng.normal(size=(5, 80))
    like = np.random.default_rng(9).normal(size=(60, 5)) @ traits
    stars = 1 + np.searchsorted(np.quantile(like, [0.2, 0.4, 0.6, 0.8]), like)
    rated = np.random.default_rng(8).random(like.shape) < 0.35
    expected = model.predict(np.where(rated, stars, np.nan))
    assert np.corrcoef(expected[~rated], stars[~rated])[0, 1] > 0.8


def test_temperature_limits(model, stars):
    _, rated = stars
    users, items = np.indices(rated.shape).reshape(2, -1)
    expected = model.predict(users, items).reshape(rated.shape)
    order = np.argsort(-np.where(rated, -np.inf, expected), 1, kind="stable")[:, :5]
    for temperature in (0.0, 1e-9):
        found = model.recommend(np.arange(120), 5, temperature=temperature)
        np.testing.assert_array_equal(found, order)
    one = model.recommend(np.zeros(2000, int), 1, temperature=np.inf).ravel().tolist()
    free = np.flatnonzero(~rated[0])
    counts = np.array([one.count(i) for i in free])
    assert counts.sum() == 2000
    chi2 = np.square(counts - 2000 / len(free)).sum() / (2000 / len(free))
    assert chi2 < len(free) + 5 * (2 * len(free)) ** 0.5


def test_temperature_one_draws_from_the_boltzmann_law(small):
    model = tiny().fit(small)
    free = np.flatnonzero(np.isnan(small[1]))
    value = model.predict(1, free)
    p = np.exp(value - value.max())
    draws = model.recommend(np.ones(3000, int), 1, temperature=1.0).ravel().tolist()
    found = np.array([draws.count(i) for i in free]) / 3000
    np.testing.assert_allclose(found, p / p.sum(), atol=0.04)


def test_two_items_have_the_exact_conditional():
    """Against sums over all hidden states, E(v, h) written out."""
    X = np.array([[1, 2], [2, 3], [3, 3], [1, 1], [3, 2], [2, 2]], dtype=float)
    model = tiny(over="users", n_components=3, max_iter=200, weight_decay=0.1).fit(X)
    m, s = model.energy_, np.array([-1.5, 0.0, 1.5]) / 1.5**0.5
    w, D, b, c = (
        a.numpy() for a in (m.weight, m.rated_weight, m.level_bias, m.hidden_bias)
    )
    hidden = np.array(list(itertools.product([0, 1], repeat=3)))
    for user, (first, _) in enumerate(X.astype(int)):
        weight = [
            np.exp(
                b[1, k]
                + hidden @ (c + s[first - 1] * w[0] + s[k] * w[1] + D.sum(0) / 2**0.5)
            ).sum()
            for k in range(3)
        ]
        p = np.array(weight) / np.sum(weight)
        np.testing.assert_allclose(model.level_proba(user, 1)[0], p, atol=1e-6)
        assert model.predict(user, 1) == pytest.approx(p @ [1, 2, 3], abs=1e-6)
    assert np.abs(m.weight.numpy()).max() > 0.1


def test_forms_of_ratings_agree(small):
    table = long(small)
    forms = [
        small,
        csr_matrix(np.nan_to_num(small)),
        csr_array(np.nan_to_num(small)),
        table.sample(frac=1, random_state=0),
        table.assign(user=table["user"].astype(object)),
        pd.DataFrame(small, columns=list("abcdef")),
    ]
    found = []
    for X in forms:
        model = tiny().fit(X)
        items = model.items_
        found.append([model.predict(3, item) for item in items])
    for values in found[1:]:
        np.testing.assert_array_equal(values, found[0])
    assert list(items) == list("abcdef")


def test_rows_of_known_users_are_those_users(small):
    """Where only the machine over users is asked, and the items rated are the same."""
    model = tiny(over="users").fit(small)
    user, item = np.indices(small.shape).reshape(2, -1)
    expected = model.predict(user, item)
    several = np.sum(~np.isnan(small), 1)[user] > 1
    rows = model.predict(small).ravel()
    np.testing.assert_allclose(rows[several], expected[several], atol=1e-12)
    rated = ~np.isnan(small)
    assert model.score(small) == pytest.approx(
        r2_score(small[rated], model.predict(small)[rated])
    )
    sparse = csr_array(np.nan_to_num(small))
    np.testing.assert_array_equal(model.predict(sparse, user[:40] * 0 + 2), rows[2::6])
    np.testing.assert_array_equal(
        model.recommend(small[[4]], 1)[0], model.recommend(4, 1)
    )


def test_own_rating_does_not_leak(small):
    """A prediction of a rated item is the same whatever its rating was."""
    model, other = tiny(over="users").fit(small), small.copy()
    item = int(np.flatnonzero(~np.isnan(small[7]))[0])
    other[7, item] = 6 - other[7, item]
    rows = model.predict(small[[7]]), model.predict(other[[7]])
    assert rows[0][0, item] == pytest.approx(rows[1][0, item], abs=1e-12)
    assert not np.allclose(rows[0], rows[1], atol=1e-6)


def test_unknown_users_and_items_get_means():
    table = pd.DataFrame(
        {
            "user": ["ann", "ann", "bob", "bob", "cy"],
            "item": ["x", "y", "x", "z", "y"],
            "rating": [5, 4, 3, 1, 2],
        }
    )
    model = tiny().fit(table)
    mean = 3.0
    assert model.mean_ == mean
    assert model.predict("dan", "x") == pytest.approx((5 + 3 + 5 * mean) / 7)
    assert model.predict("bob", "q") == pytest.approx((3 + 1 + 5 * mean) / 7)
    assert model.predict("dan", "q") == mean
    found = model.predict(["ann", "dan"], ["z", "z"])
    assert found.shape == (2,)
    assert found[1] == pytest.approx((1 + 5 * mean) / 6)
    assert model.recommend("dan", 3).tolist() == ["x", "y", "z"]
    new = pd.DataFrame({"user": ["ann"] * 2, "item": ["z", "x"], "rating": [1, 5]})
    assert model.score(new) == r2_score([1, 5], model.predict(new["user"], new["item"]))
    with pytest.raises(ValueError, match="not in fit; their ratings have no"):
        model.level_proba("dan", "x")


def test_rows_and_columns_without_ratings(small):
    X = small.copy()
    X[5] = np.nan
    X[:, 2] = np.nan
    model = tiny().fit(X)
    assert model.predict(5, 0) == pytest.approx(model.item_means_[0])
    assert model.predict(0, 2) == pytest.approx(model.user_means_[0])
    np.testing.assert_allclose(model.predict(X[[5]])[0], model.item_means_)
    assert np.isfinite(model.predict(X)).all()


def test_many_levels_are_binned_and_one_is_constant(rng):
    X = rng.normal(size=(30, 6))
    model = tiny().fit(X)
    assert len(model.levels_) == 10
    assert np.all(np.diff(model.levels_) > 0)
    codes = np.searchsorted(model._levels.edges, X)
    np.testing.assert_allclose(model.levels_, [X[codes == k].mean() for k in range(10)])
    np.testing.assert_array_equal(tiny().fit(np.full((4, 3), 2.5)).predict(0, 1), 2.5)


def test_messages(small):
    model = tiny().fit(small)
    with pytest.raises(DataDomainError, match="needs at least one rating"):
        tiny().fit(csr_array((3, 4)))
    with pytest.raises(ValueError, match="have one already, such as user 0 and item 1"):
        tiny().fit(pd.DataFrame({"user": [0, 0], "item": [1, 1], "rating": [3.0, 4.0]}))
    with pytest.raises(DataDomainError, match="NaN or infinite in a long table"):
        tiny().fit(long(small).assign(rating=np.nan))
    with pytest.raises(ValueError, match="users without items"):
        model.predict([1, 2])
    with pytest.raises(ValueError, match="is dense, and got sparse rows"):
        model.predict(csr_array(np.nan_to_num(small)))
    with pytest.raises(ValueError, match="only 0 unrated items"):
        model.recommend(np.arange(40), 6)
    with pytest.raises(ValueError, match="temperature >= 0"):
        model.recommend(0, 1, temperature=-1.0)
    with pytest.raises(ValueError, match="items that were not in fit"):
        model.predict(small[:2], [0, 99])


def test_same_seed_same_bits_and_pickles(small):
    state = torch.random.get_rng_state()
    one, two = tiny().fit(small), tiny().fit(small)
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(one.components_, two.components_)
    other = pickle.loads(pickle.dumps(one))
    users, items = np.indices(small.shape).reshape(2, -1)
    np.testing.assert_array_equal(
        other.predict(users, items), one.predict(users, items)
    )
    np.testing.assert_array_equal(
        other.recommend(1, 2, temperature=2.0), one.recommend(1, 2, temperature=2.0)
    )
    assert one.transform(small).shape == (40, 4)
    np.testing.assert_allclose(
        one.energy(small)[:3],
        one.energy_(torch.tensor(one_codes(one, small[:3]))).numpy(),
    )


def one_codes(model, X):
    """Return levels of the ratings, NaN where unrated."""
    return np.where(np.isnan(X), np.nan, np.searchsorted(model._levels.edges, X))


def test_a_long_fit_takes_rows_of_new_users_and_refuses_long_readers():
    table, rated = planted(40, 6, 0.7)
    X = np.where(rated, table, np.nan)
    model = tiny().fit(long(X))
    wide = tiny().fit(X)
    np.testing.assert_allclose(model.predict(X[:3]), wide.predict(X[:3]), atol=1e-6)
    for reader in (model.predict, model.transform, model.energy, model.recommend):
        with pytest.raises(ValueError, match="a row of ratings for each user"):
            reader(long(X))


def test_long_tables_with_other_names_or_words_are_refused():
    other = pd.DataFrame({"userId": [1, 2], "movieId": [1, 2], "rating": [1, 5]})
    with pytest.raises(ValueError, match="expected user, item and rating"):
        tiny().fit(other)
    words = pd.DataFrame({"user": [1, 2], "item": [1, 2], "rating": ["good", "bad"]})
    with pytest.raises(DataDomainError, match="expected numbers"):
        tiny().fit(words)
