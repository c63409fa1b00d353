"""EnergyOutlierDetector around other densities: E(x) = -score_samples(x)."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator, clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skebm import EnergyOutlierDetector

DENSITIES = {
    "mixture": GaussianMixture(2, random_state=0),
    "kernel": KernelDensity(bandwidth=0.5),
    "pipeline": make_pipeline(StandardScaler(), GaussianMixture(random_state=0)),
}


@pytest.fixture(params=DENSITIES)
def density(request):
    return clone(DENSITIES[request.param])


@pytest.fixture
def X(rng):
    return rng.normal(size=(150, 3))


def wrap(density, **params):
    return EnergyOutlierDetector(density, random_state=0, **params)


def mixed_table(rng, n):
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=n),
            "price": rng.normal(size=n) + 10,
            "kind": rng.choice(["a", "b", "c"], size=n),
        }
    )
    frame.loc[::7, "price"] = np.nan
    return frame


def mixed_density():
    encoder = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["size", "price"]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["kind"]),
    )
    return make_pipeline(encoder, GaussianMixture(random_state=0, reg_covar=1e-2))


def test_energy_is_the_negative_log_density(density, X, readers):
    model = wrap(density).fit(X)
    fitted = clone(density).fit(X)
    np.testing.assert_array_equal(model.energy(X), -fitted.score_samples(X))
    np.testing.assert_array_equal(model.score_samples(X), fitted.score_samples(X))
    assert model.log_partition_ == 0.0
    assert model.energy_ is None
    assert model.score(X) == pytest.approx(np.mean(fitted.score_samples(X)))
    for reader in readers(model):
        assert np.isfinite(getattr(model, reader)(X)).all()
    with pytest.raises(NotFittedError):
        density.score_samples(X)


def test_decisions(density, X):
    model = wrap(density, contamination=0.1)
    np.testing.assert_array_equal(model.fit_predict(X), model.predict(X))
    assert np.sum(model.predict(X) == -1) == 15
    np.testing.assert_array_equal(
        model.predict(X), np.where(model.decision_function(X) < 0, -1, 1)
    )
    far = X[:1] + 30
    assert model.predict(far)[0] == -1
    assert model.p_values(far)[0] == pytest.approx(1 / 151)


def test_calibration_rows_are_out_of_fold(density, X):
    """A mixture that fits its rows too well would call every new row strange."""
    rates = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        train, new = rng.normal(size=(100, 6)), rng.normal(size=(200, 6))
        rates.append(np.mean(wrap(density, novelty=True).fit(train).predict(new) == -1))
    assert 0.02 <= np.mean(rates) <= 0.09


def test_same_seed_same_fit_and_pickle(density, X):
    model, other = wrap(density).fit(X), wrap(density).fit(X)
    np.testing.assert_array_equal(model.p_values(X), other.p_values(X))
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        loaded.decision_function(X), model.decision_function(X)
    )
    assert model.offset_ == other.offset_


def test_nested_parameters(X):
    model = wrap(GaussianMixture(2))
    model.set_params(estimator__n_components=3)
    assert model.get_params()["estimator__n_components"] == 3
    assert clone(model).fit(X).estimator_.n_components == 3


def test_frozen_estimator_is_kept(rng, X):
    """Its rows in fit only calibrate."""
    fitted = GaussianMixture(random_state=0).fit(X)
    clean = rng.normal(size=(80, 3))
    model = wrap(FrozenEstimator(fitted), novelty=True).fit(clean)
    np.testing.assert_array_equal(model.energy(X), -fitted.score_samples(X))
    np.testing.assert_array_equal(
        model.calibration_energy_, np.sort(-fitted.score_samples(clean))
    )


def test_sample(X):
    model = wrap(GaussianMixture(random_state=0)).fit(X)
    rows = model.sample(4000)
    assert np.abs(rows.mean(0) - X.mean(0)).max() < 0.1
    np.testing.assert_array_equal(rows, model.sample(4000))
    assert np.any(rows != model.sample(4000, random_state=1))
    assert wrap(KernelDensity()).fit(X).sample(3).shape == (3, 3)
    frame = wrap(KernelDensity()).fit(pd.DataFrame(X, columns=list("abc"))).sample(3)
    assert list(frame.columns) == list("abc")


def test_explain(density, X):
    model = wrap(density).fit(X)
    rows = X[:12].copy()
    rows[:, 1] += 8
    contributions = model.explain(rows)
    difference = model.energy(rows) - model.explain_baseline_
    np.testing.assert_allclose(contributions.sum(1), difference, rtol=1e-6)
    assert np.mean(contributions.argmax(1) == 1) >= 0.9


def test_strings_and_missing_values_in_a_table(rng):
    frame = mixed_table(rng, 140)
    model = wrap(mixed_density()).fit(frame)
    new = mixed_table(rng, 20)
    new.loc[3, "size"] = 40.0
    energy = model.energy(new)
    assert np.isfinite(energy).all()
    assert energy.argmax() == 3
    assert model.predict(new)[3] == -1
    contributions = model.explain(new)
    assert list(contributions.columns) == ["size", "price", "kind"]
    assert contributions.loc[3].idxmax() == "size"
    difference = energy - model.explain_baseline_
    np.testing.assert_allclose(contributions.sum(axis=1), difference, rtol=1e-6)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(new.rename(columns={"kind": "sort"}))


class Rows(BaseEstimator):
    """A density whose scores are told to it."""

    def __init__(self, value=0.0):
        self.value = value

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return np.full(len(X), self.value)


def test_infinite_scores_are_clipped(X):
    compact = KernelDensity(kernel="tophat", bandwidth=0.8)
    model = wrap(compact).fit(X)
    energy = model.energy(X + 100)
    assert np.isfinite(energy).all()
    assert np.all(model.predict(X + 100) == -1)
    assert np.isfinite(model.decision_function(X + 100)).all()


def test_nan_scores_are_an_error(X):
    with pytest.raises(ValueError, match=r"Rows\.score_samples returned NaN for"):
        wrap(Rows(np.nan)).fit(X)


def test_an_estimator_without_scores_is_refused(X):
    with pytest.raises(ValueError, match="'estimator' parameter"):
        wrap(StandardScaler()).fit(X)


def test_wrong_tables_get_clear_messages(density, X):
    model = wrap(density)
    with pytest.raises(ValueError, match=r"1 sample|n_samples ?= ?1"):
        model.fit(X[:1])
    with pytest.raises((TypeError, ValueError), match=r"[Ss]parse"):
        model.fit(scipy.sparse.csr_array(X))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        model.fit(X[:, 0])
    model.fit(X)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        model.predict(X[0])
    with pytest.raises(ValueError, match="NaN"):
        model.predict(np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="X has 2 features"):
        model.predict(X[:, :2])
