"""Any density estimator as an energy: E(x) = -score_samples(x)."""

import inspect
from copy import copy

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import KFold

from skebm._check import take_rows

LARGEST_ENERGY = 1e300
"""Infinite energies are clipped to it, so that scores stay finite."""


def out_of_fold_energies(estimator, rows, n_folds, seed):
    """Yield (places, energies) of each fold's rows under a fit without them.

    Parameters
    ----------
    estimator : estimator
        Cloned for every fold.
    rows : ndarray or DataFrame of shape (n_samples, n_features)
        Training rows.
    n_folds : int
        Number of folds, 2 or more.
    seed : int
        Seed of the shuffle.

    Yields
    ------
    places : ndarray of shape (n_fold,)
        Places of the fold's rows.
    energy : ndarray of shape (n_fold,)
        Their energies.
    """
    splitter = KFold(n_folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(np.empty(len(rows))):
        fitted = clone(estimator).fit(take_rows(rows, train))
        yield test, wrapped_energy(fitted, take_rows(rows, test))


def wrapped_energy(estimator, X):
    """Return -score_samples(X), infinities clipped.

    Parameters
    ----------
    estimator : estimator
        Fitted, with ``score_samples``.
    X : ndarray or DataFrame of shape (n_samples, n_features)
        Rows.

    Returns
    -------
    ndarray of shape (n_samples,)
        Energies, float64, finite.

    Raises
    ------
    ValueError
        If the estimator returns NaN.
    """
    energy = -np.asarray(estimator.score_samples(X), dtype=np.float64)
    if np.isnan(energy).any():
        raise ValueError(
            f"{type(estimator).__name__}.score_samples returned NaN for "
            f"{int(np.isnan(energy).sum())} of {len(energy)} rows. Check its input, "
            "for instance with an imputer in front."
        )
    return np.clip(energy, -LARGEST_ENERGY, LARGEST_ENERGY)


def sample_wrapped(estimator, n_samples, seed):
    """Draw rows by the estimator's own ``sample``, seeded by its kind of argument.

    Parameters
    ----------
    estimator : estimator
        Fitted, with ``sample``.
    n_samples : int
        Number of rows, >= 1.
    seed : int
        Seed of the draws.

    Returns
    -------
    ndarray or DataFrame of shape (n_samples, n_features)
        Rows.
    """
    if "random_state" in inspect.signature(estimator.sample).parameters:
        drawn = estimator.sample(n_samples, random_state=seed)
    else:
        estimator = copy(estimator)
        if "random_state" in estimator.get_params():
            estimator.random_state = seed
        drawn = estimator.sample(n_samples)
    return drawn[0] if isinstance(drawn, tuple) else drawn
