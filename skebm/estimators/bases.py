"""b(x): the mixture of Gaussians that a network tilts, chosen on held-out rows."""

import warnings

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.utils.validation import check_is_fitted

from skebm.energies import Gaussians

FLOOR = 0.05**2
"""Least variance of a component in any direction, in variances of a column."""

BROAD_WEIGHT, BROAD_FACTOR = 0.02, 2.0
"""A component with the whole covariance, twice: tails that reach beyond the rows."""

SINGLE_FACTOR = 1.2
"""A single Gaussian takes the covariance times this, to cover what it is not."""

N_COMPONENTS = 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64
COVARIANCE_TYPES = "full", "tied", "diag"

LARGEST_WORK = 2e8
"""Candidates with more multiplications per pass over the rows are left out."""

MOST_ROWS = 20_000
"""Rows that the choice of a mixture looks at."""


def choose_mixture(z, splits, seed, copies=1):
    """Return the simplest mixture that no other beats clearly on held-out rows.

    For every type of covariance the number of components grows. A mixture replaces the
    best so far if the held-out rows gain more log-density than the standard error of
    that gain; two sizes in a row that do not end the growth.

    Parameters
    ----------
    z : ndarray of shape (n_samples, n_features)
        Scaled rows.
    splits : list of (ndarray, ndarray)
        Places of training and held-out rows.
    seed : int
        Seed of the mixtures.
    copies : int, default=1
        By which factor rows outnumber observations.

    Returns
    -------
    GaussianMixture
        Unfitted.
    """
    best, best_density = None, None
    for covariance_type in COVARIANCE_TYPES:
        top, misses = None, 0
        for n_components in _sizes(covariance_type, z.shape[1], splits):
            mixture = GaussianMixture(
                n_components,
                covariance_type=covariance_type,
                reg_covar=FLOOR,
                random_state=seed,
            )
            density = _held_out(mixture, z, splits)
            if _clearly_better(density, top, copies):
                top, misses = density, 0
                if _clearly_better(density, best_density, copies):
                    best, best_density = mixture, density
            else:
                misses += 1
            if misses == 2:
                break
    return best


def single_gaussian(z):
    """Return one Gaussian, a little wider than the rows.

    Parameters
    ----------
    z : ndarray of shape (n_samples, n_features)
        Scaled rows.

    Returns
    -------
    Gaussians
        In float32.
    """
    covariance = SINGLE_FACTOR * _covariance(z)
    return _gaussians([1.0], z.mean(0)[None], covariance[None])


def fitted_base(mixture, z):
    """Fit a mixture to the rows and give it wider tails.

    Parameters
    ----------
    mixture : GaussianMixture or FrozenEstimator
        Cloned and fitted; one in `FrozenEstimator` is taken as it is.
    z : ndarray of shape (n_samples, n_features)
        Scaled rows.

    Returns
    -------
    Gaussians
        In float32, with a broad component over all rows besides the mixture's own.
    """
    fitted = _fitted(mixture, z)
    weights = np.append((1 - BROAD_WEIGHT) * fitted.weights_, BROAD_WEIGHT)
    means = np.vstack([fitted.means_, z.mean(0)])
    broad = BROAD_FACTOR * _covariance(z)
    covariances = np.concatenate([_full_covariances(fitted), broad[None]])
    return _gaussians(weights, means, covariances)


def base_of(base, z, splits, seed, copies=1):
    """Return the unfitted mixture that the estimator's ``base`` stands for.

    Parameters
    ----------
    base : {"auto", "gaussian"}, GaussianMixture or FrozenEstimator
        "auto" chooses one by held-out likelihood, "gaussian" is one component.
    z : ndarray of shape (n_samples, n_features)
        Scaled rows.
    splits : list of (ndarray, ndarray)
        Places of training and held-out rows.
    seed : int
        Seed of the mixtures.
    copies : int, default=1
        By which factor rows outnumber observations.

    Returns
    -------
    GaussianMixture or FrozenEstimator
        For `fitted_base`.
    """
    if base == "gaussian":
        return GaussianMixture(reg_covar=FLOOR, random_state=seed)
    if base == "auto":
        splits = [(a[:MOST_ROWS], b[:MOST_ROWS]) for a, b in splits]
        return choose_mixture(z, splits, seed, copies)
    return base


def _sizes(covariance_type, n_features, splits):
    """Return the numbers of components that the rows can pay for."""
    n = min(len(train) for train, _ in splits)
    work = n * n_features ** (1 if covariance_type == "diag" else 2)
    return [
        k for k in N_COMPONENTS if k == 1 or (2 * k <= n and k * work <= LARGEST_WORK)
    ]


def _held_out(mixture, z, splits):
    """Return the log-densities of held-out rows under the base they would get."""
    parts = [
        -fitted_base(mixture, z[train])(torch.from_numpy(z[held_out]).float())
        for train, held_out in splits
    ]
    return torch.cat(parts).double().numpy()


def _clearly_better(density, other, copies):
    """Tell whether rows gain more log-density than its standard error."""
    if other is None:
        return True
    gain = density - other
    return gain.mean() > gain.std() / np.sqrt(len(gain) / copies)


def _fitted(mixture, z):
    """Return a fitted mixture; ten passes without convergence are no fault here."""
    if isinstance(mixture, FrozenEstimator):
        check_is_fitted(mixture.estimator)
        return mixture.estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return clone(mixture).fit(z)


def _covariance(z):
    """Return the covariance of the rows with the floor on its diagonal."""
    return np.cov(z.T, bias=True).reshape(2 * z.shape[1:]) + FLOOR * np.eye(z.shape[1])


def _full_covariances(mixture):
    """Return the covariance matrices of a fitted mixture, shape (K, d, d)."""
    k, d = mixture.means_.shape
    covariances = mixture.covariances_
    if mixture.covariance_type == "full":
        return covariances
    if mixture.covariance_type == "tied":
        return np.broadcast_to(covariances, (k, d, d))
    return np.reshape(covariances, (k, -1, 1)) * np.eye(d)


def _gaussians(weights, means, covariances):
    """Return the energy of a mixture, factorised in float64 and kept in float32."""
    tensors = [torch.tensor(np.asarray(a)) for a in (weights, means, covariances)]
    return Gaussians().match(*tensors).float()
