"""MixedRBM: kinds of columns, one density over all of them, frames in and out."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm

from skebm import CategoricalRBM, GaussianRBM, MixedRBM
from skebm.energies import (
    RBM,
    BernoulliUnits,
    CategoricalUnits,
    GaussianUnits,
    MixedUnits,
)
from skebm.exceptions import DataDomainError
from skebm.partition import LayerSum
from skebm.samplers import draw_missing

NAMES = ["on", "kind", "x", "level"]


def quick(**settings):
    """Return an estimator that is trained a little."""
    usual = {"n_components": 3, "n_iter": 40, "random_state": 0}
    return MixedRBM(**usual | settings)


def frame(n=300, seed=0):
    """Return a table in which the other columns go with ``on``."""
    rng = np.random.default_rng(seed)
    on = rng.random(n) < 0.4
    kind = np.where(rng.random(n) < 0.8, on, rng.integers(0, 3, n))
    return pd.DataFrame(
        {
            "on": on,
            "kind": pd.Categorical.from_codes(kind, ["dog", "cat", "eel"]),
            "x": 100.0 * (2 * on + 0.5 * rng.normal(size=n)),
            "level": np.where(rng.random(n) < 0.9, on, rng.integers(0, 4, n)).astype(
                str
            ),
        }
    )


@pytest.fixture(scope="module")
def fitted():
    X = frame()
    return quick().fit(X), X


def mixture(rbm, X):
    """Return log p(h) + log p(x | h), from the fitted attributes, (n, 2 ** H)."""
    h = np.array(list(itertools.product([0, 1], repeat=rbm.n_components)))
    fields = rbm.intercept_visible_ + h @ rbm.components_
    on, kind, x, level = fields[:, 0], fields[:, 1:4], fields[:, 4], fields[:, 5:]
    variance = float(rbm.energy_.layer.variance_of_x)
    psi = np.logaddexp(0, on) + logsumexp(kind, axis=1) + logsumexp(level, axis=1)
    psi = psi + 0.5 * (x**2 / variance + np.log(2 * np.pi * variance))
    log_p = h @ rbm.intercept_hidden_ + psi
    log_p = log_p - logsumexp(log_p)
    bits = X["on"].to_numpy()[:, None] * on - np.logaddexp(0, on)
    kinds = (kind - logsumexp(kind, axis=1, keepdims=True)).T[X["kind"].cat.codes]
    levels = (level - logsumexp(level, axis=1, keepdims=True)).T
    levels = levels[X["level"].astype(int)]
    location, scale = rbm.location_[2], rbm.scale_[2]
    means, sd = x * scale + location, np.sqrt(variance) * scale
    return log_p + bits + kinds + levels + norm.logpdf(X[["x"]].to_numpy(), means, sd)


def test_density_is_a_mixture_of_independent_columns(fitted):
    rbm, X = fitted
    parts = [units for units, _ in rbm.energy_.units.parts]
    rbm.energy_.layer.variance_of_x = parts[2].variance
    log_p = mixture(rbm, X)
    expected = logsumexp(log_p, axis=1)
    np.testing.assert_allclose(rbm.score_samples(X), expected, rtol=0, atol=3e-6)
    h = np.array(list(itertools.product([0, 1], repeat=3)))
    posterior = np.exp(log_p - expected[:, None])
    np.testing.assert_allclose(rbm.transform(X), posterior @ h, rtol=0, atol=1e-6)


def test_density_sums_and_integrates_to_one(fitted):
    rbm, _ = fitted
    x = np.linspace(-700.0, 900.0, 400)
    rows = itertools.product([False, True], ["dog", "cat", "eel"], x, list("0123"))
    grid = pd.DataFrame(rows, columns=NAMES)
    total = np.exp(rbm.score_samples(grid)).sum() * (x[1] - x[0])
    assert total == pytest.approx(1, abs=1e-4)


def test_missing_real_entries_leave_a_density_of_the_others(fitted):
    """p(others) is the integral over x, whatever unit x has."""
    rbm, X = fitted
    rows = X[:20].copy()
    x = np.linspace(-700.0, 900.0, 800)
    grid = rows.loc[rows.index.repeat(len(x))].assign(x=np.tile(x, len(rows)))
    p = np.exp(rbm.score_samples(grid)).reshape(len(rows), -1).sum(1) * (x[1] - x[0])
    rows["x"] = np.nan
    np.testing.assert_allclose(np.exp(rbm.score_samples(rows)), p, rtol=1e-4)


def test_kinds_follow_from_types_and_values(rng):
    n = 60
    X = pd.DataFrame(
        {
            "bool": rng.random(n) < 0.5,
            "two": rng.integers(0, 2, n) * 3.5 + 1,
            "yes": rng.choice(["yes", "no"], n),
            "word": rng.choice(["a", "b", "c"], n),
            "category": pd.Categorical(rng.choice(["a", "b", "c"], n)),
            "few": rng.integers(0, 5, n),
            "many": rng.integers(0, 50, n),
            "float": rng.normal(size=n),
            "constant": np.full(n, 3.0),
            "nullable": pd.array(rng.integers(0, 5, n), dtype="Int64"),
        }
    )
    rbm = quick(n_iter=1).fit(X)
    assert rbm.kinds_ == [
        *["binary"] * 3,
        *["categorical"] * 3,
        *["real"] * 3,
        "categorical",
    ]
    assert list(rbm.categories_[1]) == [1.0, 4.5]
    assert rbm.categories_[7] is None
    forced = quick(n_iter=1, kinds={"few": "real", 6: "categorical"}).fit(X)
    assert forced.kinds_[5:7] == ["real", "categorical"]
    assert set(quick(n_iter=1, kinds="real").fit(X[["two", "few"]]).kinds_) == {"real"}


def test_arrays_of_numbers_are_real_columns(rng):
    X = rng.normal(size=(100, 3))
    mixed, real = quick(n_iter=5).fit(X), GaussianRBM(3, n_iter=5, random_state=0)
    expected = real.fit(X).score_samples(X)
    np.testing.assert_allclose(mixed.score_samples(X), expected, rtol=1e-12)
    X[:, 0] = X[:, 0] > 0
    assert quick(n_iter=1).fit(X).kinds_ == ["binary", "real", "real"]
    assert set(np.unique(quick(n_iter=1).fit(X).sample(50)[:, 0])) == {0.0, 1.0}


def test_categories_alone_are_a_categorical_rbm(rng):
    X = rng.choice(["a", "b", "c"], (100, 2))
    mixed = quick(n_iter=5).fit(X)
    codes = CategoricalRBM(3, n_iter=5, random_state=0).fit(X)
    np.testing.assert_array_equal(mixed.score_samples(X), codes.score_samples(X))


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        ("kind", "real", "is real, but could not convert"),
        ("kind", "binary", "is binary, but has 3 values"),
        ("kind", "nominal", "Got kind 'nominal'"),
        ("colour", "real", "Got given column 'colour'|expected one of"),
    ],
)
def test_kinds_that_do_not_fit_are_refused(column, kind, message):
    with pytest.raises(ValueError, match=message):
        quick(kinds={column: kind}).fit(frame())


def test_dates_and_infinities_are_refused():
    X = frame()
    dates = X.assign(day=pd.Timestamp("2020-01-01"))
    with pytest.raises(DataDomainError, match="Turn times into numbers"):
        quick().fit(dates)
    X.loc[3, "x"] = np.inf
    with pytest.raises(ValueError, match="contains infinity"):
        quick().fit(X)


def test_frames_come_back_in_their_types(fitted):
    rbm, X = fitted
    holes = X.astype({"on": "boolean"}).mask(
        np.random.default_rng(0).random(X.shape) < 0.2
    )
    holes["kind"] = holes["kind"].astype(X["kind"].dtype)
    for rows in [rbm.sample(9), rbm.impute(holes), rbm.reconstruct(X), rbm.gibbs(X)]:
        assert list(rows.dtypes) == list(X.dtypes)
        assert not rows.isna().any().any()
    full, known = rbm.impute(holes), holes.notna()
    for name in NAMES:
        kept = known[name].to_numpy()
        if name == "x":
            np.testing.assert_allclose(full[name][kept], X[name][kept])
        else:
            assert (full[name][kept] == X[name][kept]).all()


def test_draws_given_other_columns(fitted):
    rbm, _ = fitted
    rows = rbm.sample(2000, given={"on": True, "kind": "cat"})
    assert rows["on"].all()
    assert (rows["kind"] == "cat").all()
    assert rows["x"].mean() == pytest.approx(200, abs=15)
    with pytest.raises(DataDomainError, match="unseen in fit"):
        rbm.sample(given={"kind": "cow"})


def test_unknown_categories(fitted):
    rbm, X = fitted
    rows = X[:3].astype({"kind": object})
    rows.loc[1, "kind"] = "cow"
    with pytest.raises(DataDomainError, match=r"Column 'kind' holds cow"):
        rbm.score_samples(rows)
    lenient = quick(handle_unknown="missing").fit(X)
    expected = lenient.score_samples(rows.replace({"kind": {"cow": None}}))
    np.testing.assert_array_equal(lenient.score_samples(rows), expected)


def test_scores_follow_the_units_of_real_columns(fitted):
    rbm, X = fitted
    large = quick().fit(X.assign(x=1000 * X["x"]))
    np.testing.assert_allclose(
        large.score_samples(X.assign(x=1000 * X["x"])),
        rbm.score_samples(X) - np.log(1000),
        atol=1e-4,
    )


def test_independent_kinds_stay_independent(rng):
    n = 5000
    bit, code, x = rng.random(n) < 0.3, rng.integers(0, 3, n), rng.normal(size=n)
    X = pd.DataFrame({"bit": bit, "code": code.astype(str), "x": x})
    rbm = quick(batch_size=1000, n_iter=100).fit(X)
    truth = np.where(bit, np.log(0.3), np.log(0.7)) - np.log(3) + norm.logpdf(x)
    assert truth.mean() - rbm.score(X) == pytest.approx(0, abs=0.01)
    given = [rbm.sample(4000, given={"bit": b})["x"].mean() for b in [True, False]]
    assert np.ptp(given) < 0.1


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 500, "n_iter": 50}, pytest.param({}, marks=pytest.mark.slow)],
)
def test_planted_machine_is_recovered(settings):
    g = torch.Generator().manual_seed(0)
    parts = [
        (BernoulliUnits(), 2),
        (CategoricalUnits([3, 4]), 2),
        (GaussianUnits(), 2),
    ]
    rbm = RBM(3, MixedUnits(parts)).build(6).double()
    with torch.no_grad():
        for weight in rbm.parameters():
            weight.normal_(0, 1.2, generator=g)
        nothing = torch.full((20_000, 6), torch.nan, dtype=torch.float64)
        x = draw_missing(rbm, nothing, generator=g)
        truth = float(-rbm(x[10_000:]).mean()) - LayerSum()(rbm).value
    v = x.numpy()
    X = pd.DataFrame({"a": v[:, 0] > 0, "b": v[:, 1] > 0, "e": v[:, 4], "f": v[:, 5]})
    X.insert(2, "c", pd.Categorical(v[:, 2].astype(int)))
    X.insert(4, "d", v[:, 3].astype(int).astype(str))
    found = MixedRBM(random_state=0, **settings).fit(X[:10_000])
    kinds = ["binary", "binary", "categorical", "real", "categorical", "real"]
    assert found.kinds_ == kinds
    assert truth - found.score(X[10_000:]) <= 0.05
