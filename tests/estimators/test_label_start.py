"""The start of a classifier: Bayes' rule of Gaussian classes, and factors of draws."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import train_test_split

from skebm import JEMClassifier
from skebm.estimators.label_start import discriminant, label_start, likeliest_factor
from skebm.estimators.partial_labels import LabelledRows, labelled_rows

ROOT = np.array([[1.0, 0.0], [0.8, 0.5]])
MEANS = np.array([[-1.0, 0.5], [1.0, 0.0]])


def gaussians(n=40_000, seed=0):
    """Rows of two Gaussians of one covariance, a quarter of them of the first."""
    rng = np.random.default_rng(seed)
    codes = (rng.random(n) > 0.25).astype(int)
    z = MEANS[codes] + rng.normal(size=(n, 2)) @ ROOT.T
    return LabelledRows(z, codes, np.ones(n))


def test_discriminant_is_the_rule_of_bayes():
    precision = np.linalg.inv(ROOT @ ROOT.T)
    slope = precision @ (MEANS[1] - MEANS[0])
    first, second = np.einsum("ki,ij,kj->k", MEANS, precision, MEANS)
    v, u = discriminant(gaussians(), 2)
    assert v[1] - v[0] == pytest.approx(slope, rel=0.03)
    assert u[1] - u[0] == pytest.approx(np.log(3) - (second - first) / 2, rel=0.03)
    assert v.sum(0) == pytest.approx(np.zeros(2), abs=1e-9)


def test_discriminant_is_that_of_scikit_learn():
    """Without shrinkage: many rows of three classes."""
    X, y = load_iris(return_X_y=True)
    known = LinearDiscriminantAnalysis(solver="lsqr").fit(X, y)
    rows = LabelledRows(np.repeat(X, 500, 0), np.repeat(y, 500), np.ones(75_000))
    v, u = discriminant(rows, 3)
    assert v == pytest.approx(known.coef_ - known.coef_.mean(0), rel=0.05)
    gap = known.intercept_ - known.intercept_.mean()
    assert u == pytest.approx(gap, rel=0.05)


def test_weights_are_numbers_of_rows():
    rows = gaussians(60)
    weights = np.random.default_rng(1).integers(1, 4, 60)
    once = labelled_rows(rows.z, rows.codes, weights.astype(float))
    often = labelled_rows(*(np.repeat(a, weights, 0) for a in rows))
    for a, b in zip(discriminant(once, 2), discriminant(often, 2), strict=True):
        assert a == pytest.approx(b, abs=1e-12)


def test_factor_of_the_draws_is_found():
    rng = np.random.default_rng(0)
    scores, offset = rng.normal(size=(2, 200_000, 3))
    odds = 0.7 * scores + offset
    codes = (odds + rng.gumbel(size=odds.shape)).argmax(1)
    rows = LabelledRows(odds, codes, np.ones(len(odds)))
    assert likeliest_factor(scores, offset, rows) == pytest.approx(0.7, rel=0.03)


def test_columns_that_tell_nothing_get_no_slope():
    """Labels are drawn from what the patterns say."""
    rng = np.random.default_rng(0)
    log_p = 2 * rng.normal(size=(5000, 2))
    codes = (0.3 * log_p + rng.gumbel(size=log_p.shape)).argmax(1)
    rows = LabelledRows(rng.normal(size=(5000, 3)), codes, np.ones(5000))
    start = label_start(rows, log_p, 0)
    assert abs(start.slope).max() < 0.1
    assert start.trust == pytest.approx(0.4 * 0.3, rel=0.1)


def test_discriminant_takes_the_share_that_patterns_leave():
    """Patterns that say twice the truth have a = 1/2 and start at 0.4 of that."""
    rows = gaussians()
    slope, intercept = discriminant(rows, 2)
    odds = rows.z @ slope.T + intercept
    start = label_start(rows, 2 * odds, 0)
    assert start.trust == pytest.approx(0.2, rel=0.05)
    # What is left of the likeliest 2 a, whatever the draws say it is.
    share = 2 * start.trust / 0.4 - 2 * start.trust
    assert start.slope == pytest.approx(share * slope, rel=0.02)
    assert start.intercept == pytest.approx(share * intercept, rel=0.02)


@pytest.mark.parametrize(("d", "n_first"), [(2, 1), (101, 5)])
def test_start_without_a_discriminant(d, n_first):
    """One row of a class, or a hundred and one columns."""
    codes = np.repeat([0, 1], [n_first, 5])
    z = np.random.default_rng(0).normal(size=(len(codes), d))
    rows = LabelledRows(z, codes, np.ones(len(codes)))
    start = label_start(rows, np.zeros((len(codes), 2)), 0)
    assert not start.slope.any()
    assert not start.intercept.any()


def test_iris_of_an_unlucky_split_is_told_apart():
    """Logistic regression has .84 here, five neighbours .84."""
    X, y = load_iris(return_X_y=True)
    A, B, a, b = train_test_split(X, y, test_size=0.5, stratify=y, random_state=45)
    assert JEMClassifier(random_state=45).fit(A, a).score(B, b) >= 0.91
