"""CategoricalRBM against tables of probabilities, and categories in and out."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logsumexp, softmax

from skebm import CategoricalRBM
from skebm.energies import RBM, CategoricalUnits
from skebm.exceptions import DataDomainError
from skebm.partition import LayerSum
from skebm.samplers import draw_missing

SIZES = 3, 2, 4


def quick(**settings):
    """Return an estimator that is trained a little."""
    usual = {"n_components": 3, "n_iter": 20, "random_state": 0}
    return CategoricalRBM(**usual | settings)


def codes(rng, n=300):
    """Return rows in which the last column goes with the first."""
    first = rng.integers(0, 3, n)
    last = np.where(rng.random(n) < 0.7, first, rng.integers(0, 4, n))
    last[:4] = range(4)
    return np.c_[first, rng.integers(0, 2, n), last]


def every_row(sizes=SIZES):
    return np.array(list(itertools.product(*map(range, sizes))))


def listed(rbm, X):
    """Return log p of rows and each hidden state, from the fitted attributes."""
    h = np.array(list(itertools.product([0, 1], repeat=rbm.n_components)))
    starts = np.cumsum([0, *SIZES[:-1]])

    def log_weights(rows):
        phi = np.zeros((len(rows), sum(SIZES)))
        np.put_along_axis(phi, rows + starts, 1, 1)
        fields = rbm.intercept_hidden_ + phi @ rbm.components_.T
        return (phi @ rbm.intercept_visible_)[:, None] + fields @ h.T

    return h, log_weights(X) - logsumexp(log_weights(every_row()))


@pytest.fixture(scope="module")
def fitted():
    X = codes(np.random.default_rng(0))
    return quick().fit(X), X


def test_probabilities_are_those_of_the_listed_machine(fitted):
    rbm, _ = fitted
    X = every_row()
    _, log_p = listed(rbm, X)
    scores = rbm.score_samples(X)
    np.testing.assert_allclose(scores, logsumexp(log_p, axis=1), rtol=0, atol=2e-6)
    assert np.exp(scores).sum() == pytest.approx(1, abs=1e-6)
    assert rbm.log_partition_interval_ == (rbm.log_partition_,) * 2


def test_hidden_probabilities_are_the_posterior(fitted):
    rbm, X = fitted
    h, log_p = listed(rbm, X)
    expected = softmax(log_p, axis=1) @ h
    np.testing.assert_allclose(rbm.transform(X), expected, rtol=0, atol=1e-6)


def test_missing_entries_are_summed_out_and_filled_with_the_likeliest(fitted):
    rbm, _ = fitted
    X = every_row()
    p = np.exp(rbm.score_samples(X)).reshape(SIZES)
    holes = X.astype(float)
    holes[:, 0] = np.nan
    expected = p.sum(0)[X[:, 1], X[:, 2]]
    np.testing.assert_allclose(np.exp(rbm.score_samples(holes)), expected, rtol=1e-5)
    full = rbm.impute(holes)
    np.testing.assert_array_equal(full[:, 0], p.argmax(0)[X[:, 1], X[:, 2]])
    np.testing.assert_array_equal(full[:, 1:], X[:, 1:])


def test_draws_have_the_probabilities(fitted):
    rbm, _ = fitted
    p = np.exp(rbm.score_samples(every_row()))
    draws = np.ravel_multi_index(rbm.sample(20_000).T, SIZES)
    counts = np.bincount(draws, minlength=len(p))
    assert 0.5 * np.abs(counts / counts.sum() - p).sum() < 0.02
    given = rbm.sample(5000, given={0: 2, 1: 0})
    assert (given[:, :2] == [2, 0]).all()
    expected = p.reshape(SIZES)[2, 0]
    found = np.bincount(given[:, 2], minlength=4) / 5000
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.03)


def test_energy_of_one_column_is_surprise():
    """Row 22: E_k + log of the frequency is a constant."""
    x = np.repeat(np.arange(4), [4000, 3000, 2500, 500])[:, None]
    rbm = quick(n_components=1, batch_size=10_000, n_iter=300).fit(x)
    shift = rbm.energy([[0], [1], [2], [3]]) + np.log([0.4, 0.3, 0.25, 0.05])
    assert np.ptp(shift) < 1e-3


def test_planted_table_is_recovered(rng):
    """A table of 3 x 4 probabilities: no more than 0.01 nat away."""
    p = rng.dirichlet(np.full(12, 0.7))
    X = np.c_[np.unravel_index(rng.choice(12, 10_000, p=p), (3, 4))]
    rbm = quick(n_components=4, batch_size=1000, n_iter=100).fit(X)
    log_p = rbm.score_samples(every_row((3, 4)))
    assert p @ (np.log(p) - log_p) < 0.01


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 500, "n_iter": 50}, pytest.param({}, marks=pytest.mark.slow)],
)
def test_planted_machine_is_recovered(settings):
    g = torch.Generator().manual_seed(0)
    rbm = RBM(3, CategoricalUnits([2, 3, 4, 3])).build(4).double()
    with torch.no_grad():
        for weight in rbm.parameters():
            weight.normal_(0, 1.5, generator=g)
        nothing = torch.full((20_000, 4), torch.nan, dtype=torch.float64)
        x = draw_missing(rbm, nothing, generator=g)
        truth = float(-rbm(x[10_000:]).mean()) - LayerSum()(rbm).value
    X = x.numpy().astype(int)
    found = CategoricalRBM(random_state=0, **settings).fit(X[:10_000])
    assert truth - found.score(X[10_000:]) <= 0.05


def frame(n=120):
    rng = np.random.default_rng(1)
    X = codes(rng, n)
    table = pd.DataFrame(
        {
            "size": pd.Categorical.from_codes(
                X[:, 0], ["small", "large", "medium"], ordered=True
            ),
            "on": X[:, 1].astype(bool),
            "word": np.array(["a", "b", "c", "d"])[X[:, 2]],
            "count": pd.array(X[:, 2] + 10, dtype="Int64"),
        }
    )
    return table.mask(rng.random(table.shape) < 0.1)


def test_frames_come_back_in_their_types():
    table = frame()
    typed = table.astype({"count": "Int64", "word": "string", "on": "boolean"})
    typed["size"] = typed["size"].astype(
        pd.CategoricalDtype(["small", "large", "medium"], ordered=True)
    )
    rbm = quick(n_iter=5).fit(typed)
    for rows in [rbm.sample(7), rbm.impute(typed), rbm.gibbs(typed)]:
        assert list(rows.dtypes) == list(typed.dtypes)
        assert not rows.isna().any().any()
    full, known = rbm.impute(typed), typed.notna().to_numpy()
    assert (full.to_numpy(object)[known] == typed.to_numpy(object)[known]).all()
    assert list(rbm.categories_[0]) == ["small", "large", "medium"]
    assert list(rbm.categories_[2]) == ["a", "b", "c", "d"]


def test_words_numbers_and_frames_are_one_model(rng):
    X = codes(rng)
    words = np.array(["p", "q", "r", "s"])[X]
    plain = quick().fit(X).score_samples(X)
    for table in [words, words.astype(object), X.astype(float), pd.DataFrame(words)]:
        np.testing.assert_array_equal(quick().fit(table).score_samples(table), plain)


@pytest.mark.parametrize("nothing", [None, np.nan])
def test_none_is_missing(fitted, nothing):
    rbm, _ = fitted
    row = np.array([[nothing, 1, 2]], dtype=object)
    np.testing.assert_array_equal(
        rbm.score_samples(row), rbm.score_samples([[np.nan, 1, 2]])
    )


def test_unknown_categories(fitted):
    rbm, X = fitted
    with pytest.raises(
        DataDomainError, match=r"CategoricalRBM: Column 2 holds 9.*handle_unknown"
    ):
        rbm.score_samples([[0, 1, 9]])
    lenient = quick(handle_unknown="missing").fit(X)
    np.testing.assert_array_equal(
        lenient.score_samples([[0, 1, 9]]), rbm.score_samples([[0, 1, np.nan]])
    )
    with pytest.raises(DataDomainError, match="unseen in fit"):
        lenient.sample(given={2: 9})


def test_one_category_is_nearly_certain(rng):
    X = np.c_[codes(rng), np.full(300, 7)]
    rbm = quick().fit(X)
    assert (rbm.sample(50)[:, 3] == 7).all()
    all_rows = np.c_[every_row(), np.full(24, 7)]
    assert np.exp(rbm.score_samples(all_rows)).sum() == pytest.approx(1, abs=0.01)


def test_given_needs_a_free_column_and_known_names(fitted):
    rbm, _ = fitted
    with pytest.raises(ValueError, match="Leave at least one column out"):
        rbm.sample(given={0: 1, 1: 1, 2: 1})
    with pytest.raises(ValueError, match="expected one of"):
        rbm.sample(given={"colour": 1})
    with pytest.raises(ValueError, match="expected no missing value"):
        rbm.sample(given={0: np.nan})


def test_entries_without_a_hash_are_refused():
    X = np.array([["a", "b"], ["b", "a"], ["a", "a"]], dtype=object)
    X[1, 0] = {"a": 1}
    with pytest.raises(TypeError, match="argument must be a string or a real number"):
        quick().fit(X)


def test_columns_of_nothing_are_refused():
    with pytest.raises(ValueError, match="hold nothing but NaN"):
        quick().fit(pd.DataFrame({"a": ["x", "y"] * 5, "b": [None] * 10}))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        quick().fit(pd.DataFrame({"a": []}))
