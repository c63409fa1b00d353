"""Where an energy regression starts: a linear mean and the law of its residuals."""

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln
from sklearn.linear_model import Ridge, RidgeCV

ALPHAS = np.logspace(-2, 4, 13)
"""Ridge penalties to choose from."""

FREEDOMS = np.geomspace(2.5, 32.0, 12)
"""Degrees of freedom to choose from."""

CAUTION = 1.0
"""Standard errors that a larger penalty may cost."""

N_STEPS = 50
"""Steps of the iteration for a width."""

LEAST_SPREAD = 1e-3
"""Least width of a base, in standard deviations of the target."""


class LinearLaw(NamedTuple):
    """A linear mean, and independent Student residuals mixed by a triangular matrix.

    Attributes
    ----------
    coef : ndarray of shape (d, k)
        Coefficients of the mean.
    intercept : ndarray of shape (1, k)
        Its value at zero.
    mixing : ndarray of shape (k, k)
        Lower triangular root of the residuals' covariance.
    log_width : ndarray of shape (k,)
        Log-width of each Student density, of residuals that the root makes white.
    freedom : ndarray of shape (k,)
        Degrees of freedom.
    """

    coef: np.ndarray
    intercept: np.ndarray
    mixing: np.ndarray
    log_width: np.ndarray
    freedom: np.ndarray


def constant_law(n_features, y, weight):
    """Return the law of targets around their mean.

    Parameters
    ----------
    n_features : int
        Columns d, whose coefficients are zero.
    y : ndarray of shape (n, k)
        Targets.
    weight : ndarray of shape (n,)
        Positive.

    Returns
    -------
    LinearLaw
        Whose mean is a constant.
    """
    intercept = np.average(y, 0, weight)
    return _law(np.zeros((n_features, y.shape[1])), intercept, y - intercept, weight)


def linear_law(x, y, weight):
    """Return a cautious ridge regression with the law of its residuals.

    The penalty is the largest whose leave-one-out error is within one standard error
    of the least [1]_: training can add to a slope sooner than take from it. The law is
    that of leave-one-out residuals, which are as wide as those of new rows.

    Parameters
    ----------
    x, y : ndarray of shape (n, d), (n, k)
        Rows and targets.
    weight : ndarray of shape (n,)
        Positive.

    Returns
    -------
    LinearLaw
        A constant mean for fewer than three rows.

    References
    ----------
    .. [1] Breiman, Friedman, Olshen, Stone (1984), Classification and regression trees,
       Wadsworth.
    """
    if len(x) < 3:
        return constant_law(x.shape[1], y, weight)
    penalty, size = _cautious(x, y, weight)
    ridge = Ridge(penalty).fit(x, y, weight)
    coef, intercept = ridge.coef_.reshape(len(size[0]), -1).T, ridge.intercept_
    off = np.copysign(size, y - x @ coef - intercept)
    return _law(coef, np.atleast_1d(intercept), off, weight)


def _law(coef, intercept, off, weight):
    """Return the law of a linear mean's residuals."""
    covariance = np.atleast_2d(np.cov(off, rowvar=False, bias=True, aweights=weight))
    mixing = np.linalg.cholesky(covariance + LEAST_SPREAD**2 * np.eye(len(intercept)))
    white = np.linalg.solve(mixing, off.T)
    laws = np.array([student(r, weight) for r in white])
    return LinearLaw(coef, intercept[None], mixing, np.log(laws[:, 0]), laws[:, 1])


def _cautious(x, y, weight):
    """Return a penalty for each target, and the sizes of left-out residuals."""
    ridge = RidgeCV(ALPHAS, store_cv_results=True).fit(x, y, weight)
    # The squares come multiplied by the weights.
    errors = ridge.cv_results_.reshape(len(x), y.shape[1], -1)
    mean, spread = errors.mean(0), errors.std(0) / np.sqrt(len(x))
    places, targets = mean.argmin(1), np.arange(y.shape[1])
    allowed = mean[targets, places] + CAUTION * spread[targets, places]
    chosen = [np.flatnonzero(m <= a).max() for m, a in zip(mean, allowed, strict=True)]
    sizes = errors[:, targets, chosen] / weight[:, None]
    return ALPHAS[chosen], np.sqrt(sizes)


def student(r, weight):
    """Return width and degrees of freedom of the likeliest Student law around zero.

    Parameters
    ----------
    r : ndarray of shape (n,)
        Residuals.
    weight : ndarray of shape (n,)
        Positive.

    Returns
    -------
    width, freedom : float
        The freedom is one of `FREEDOMS`; the width at least `LEAST_SPREAD`.
    """
    share, square = weight / weight.sum(), r[:, None] ** 2
    variance = np.full(len(FREEDOMS), max(share @ square[:, 0], LEAST_SPREAD**2))
    for _ in range(N_STEPS):
        pull = (FREEDOMS + 1) / (FREEDOMS + square / variance)
        variance = np.maximum(share @ (pull * square), LEAST_SPREAD**2)
    nu = FREEDOMS
    log_p = (
        gammaln((nu + 1) / 2)
        - gammaln(nu / 2)
        - 0.5 * np.log(np.pi * nu * variance)
        - (nu + 1) / 2 * (share @ np.log1p(square / (nu * variance)))
    )
    best = log_p.argmax()
    return float(np.sqrt(variance[best])), float(nu[best])
