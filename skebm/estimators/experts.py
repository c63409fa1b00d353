"""E(z) = -sum_i w_i log p_i(z): fitted estimators as one energy of scaled rows."""

import copy
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from skebm._check import check_names
from skebm.energies import Gaussians, Rescaled, Tilted
from skebm.energies.form import QuadraticForm
from skebm.estimators.bases import BROAD_FACTOR, BROAD_WEIGHT
from skebm.estimators.density import ScaledDensity
from skebm.estimators.normalizing import log_volume
from skebm.exceptions import NotNormalizableError

MOST_COMPONENTS = 64
"""Components of a product of mixtures that are kept: the heaviest."""

LARGEST_WORK = 4e7
"""A mixture counts as one Gaussian where its product would hold more values."""

LEAST_SHARE = 0.1
"""Division by an expert leaves a component this share of its precision, or is left."""


class Expert(NamedTuple):
    """One factor of the product, as the constructor got it.

    Attributes
    ----------
    name : str
        Its name.
    estimator : estimator or FrozenEstimator
        A density of skebm.
    weight : float
        Its exponent.
    place : int
        Its place among the experts, dropped ones included.
    """

    name: str
    estimator: BaseEstimator
    weight: float
    place: int

    def fitted(self, X, seed):
        """Return a clone fitted to X, or a frozen expert as it is.

        Parameters
        ----------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            Training rows.
        seed : int
            With ``place``, its ``random_state`` where it has none of its own.

        Returns
        -------
        estimator or FrozenEstimator
            Fitted.
        """
        if isinstance(self.estimator, FrozenEstimator):
            return self.estimator
        model = clone(self.estimator)
        if model.random_state is None:
            model.set_params(random_state=seed + self.place)
        return model.fit(X)


def chosen_experts(estimators, weights, X):
    """Return the experts that were not dropped.

    Parameters
    ----------
    estimators : list of (str, estimator) tuples
        Of the constructor.
    weights : array-like of shape (n_experts,) or None
        Of the constructor.
    X : ndarray or DataFrame of shape (n_samples, n_features)
        Training rows, with their names.

    Returns
    -------
    list of Expert
        At least one.

    Raises
    ------
    ValueError
        If ``estimators`` or ``weights`` are malformed, an expert is no density of
        skebm, or a frozen one was fitted to other columns.
    NotFittedError
        If a frozen expert is not fitted.
    """
    if not estimators or not all(_is_named(item) for item in estimators):
        raise ValueError(
            f"Got estimators={estimators!r}, but expected a list of (name, estimator) "
            "tuples, at least one."
        )
    n = len(estimators)
    values = np.ones(n) if weights is None else np.array(weights, dtype=float)
    if values.shape != (n,) or not np.isfinite(values).all():
        raise ValueError(
            f"Got weights={weights!r}, but expected {n} finite numbers, one for every "
            "tuple of estimators."
        )
    experts = [
        Expert(*estimators[place], float(values[place]), place)
        for place in range(n)
        if not isinstance(estimators[place][1], str) or estimators[place][1] != "drop"
    ]
    if not experts:
        raise ValueError(
            "Got estimators that are all 'drop', but expected one expert or more."
        )
    for expert in experts:
        _check_expert(expert, X)
    return experts


def _is_named(item):
    """Tell whether an item is a (name, estimator) tuple."""
    return (
        isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], str)
    )


def _check_expert(expert, X):
    """Raise unless an expert is a density over rows like X, fitted if frozen."""
    model = _model_of(expert.estimator)
    if not isinstance(model, ScaledDensity):
        raise ValueError(
            f"Got {model!r} as the expert {expert.name!r}, but expected a "
            "DeepEBM or a ProductOfExperts. Pass one, or a fitted one in "
            "FrozenEstimator; a GaussianMixture m enters as DeepEBM(base=m)."
        )
    if isinstance(expert.estimator, FrozenEstimator):
        check_is_fitted(model)
        check_names(model, X, reset=False)


def _model_of(estimator):
    """Return the estimator itself, taken out of `FrozenEstimator`."""
    if isinstance(estimator, FrozenEstimator):
        return estimator.estimator
    return estimator


def product(experts, weights, location, scale):
    """Return the energy of a product of experts, and a density that covers it.

    E(z) = -sum_i w_i log p_i(z) with p_i the expert's density of
    z = (x - location) / scale, up to its Z where that is unknown. Where E is no
    polynomial it is written as a tilt of b, the product of the experts' own bases with
    the same weights: a mixture of Gaussians, exactly if the weights are 1.

    Parameters
    ----------
    experts : list of estimator or FrozenEstimator
        Fitted, at least one.
    weights : list of float
        w_i.
    location, scale : ndarray of shape (n_features,)
        Of the rows z.

    Returns
    -------
    energy : Energy
        A weighted sum if it is quadratic, else `Tilted`; float64, on the CPU.
    base : Gaussians
        b; float64, on the CPU.

    Raises
    ------
    NotNormalizableError
        If no weight is positive, or E is quadratic and exp(-E) has no finite integral.
    """
    if not max(weights) > 0:
        raise NotNormalizableError(
            f"Got weights {list(weights)}, but exp(-E) can have a finite integral only "
            "if a weight is positive."
        )
    models = [_model_of(expert) for expert in experts]
    pairs = [(model, w) for model, w in zip(models, weights, strict=True) if w]
    parts = [(_rescaled(model, location, scale), w) for model, w in pairs]
    energy = _total([w * part for part, w in parts])
    form = energy.as_quadratic()
    if form is not None:
        return energy, _mixture([form])
    laws = [
        (_near(part, model.base_), w)
        for (part, w), (model, _) in zip(parts, pairs, strict=True)
    ]
    base = _widened(_mixture(_products(laws)))
    return Tilted(base, energy - base), base


def _total(energies):
    """Return the sum of at least one energy."""
    return sum(energies[1:], start=energies[0])


def _rescaled(model, location, scale):
    """Return -log p of a fitted expert as a function of z; its own tensors stay."""
    shift = model.location_ / scale - location / scale
    known = model.log_partition_
    return Rescaled(
        copy.deepcopy(model.energy_).cpu().double(),
        tuple(shift.tolist()),
        tuple((model.scale_ / scale).tolist()),
        0.0 if known is None else known - log_volume(scale),
    )


def _near(part, base):
    """Return the density of a rescaled expert if it is Gaussian, else its base's."""
    form = part.as_quadratic()
    if form is not None:
        return _mixture([form])
    law = copy.deepcopy(base).cpu().double()
    shift, ratio = law.means.new_tensor([part.location, part.scale])
    factors = ratio[:, None] * law.factors
    means = shift + ratio * law.means
    return Gaussians().match(law.log_weights.exp(), means, factors @ factors.mT)


def _products(laws):
    """Return the heaviest components of prod_i b_i^w_i, as polynomials.

    A component of b^w is that of b with its precision times w. Experts with w < 0
    divide, as one Gaussian each, the components that stay Gaussians.
    """
    laws = sorted(laws, key=lambda pair: -pair[1])
    forms = None
    for law, w in laws:
        n_present = 1 if forms is None else len(forms)
        if w < 0 or n_present * law.factors.numel() > LARGEST_WORK:
            law = _one_gaussian(law)
        factors = [form.times(w) for form in _forms(law)]
        if forms is None:
            forms = factors
        elif w < 0:
            forms = [_divided(form, factors[0]) for form in forms]
        else:
            forms = [form.plus(factor) for form in forms for factor in factors]
        forms = sorted(forms, key=lambda form: -form.log_partition())[:MOST_COMPONENTS]
    return forms


def _forms(law):
    """Return -log w_k N(z; m_k, S_k) of every component as a polynomial."""
    forms = []
    for log_weight, mean, factor in zip(
        law.log_weights, law.means, law.factors, strict=True
    ):
        precision = torch.cholesky_inverse(factor)
        zero = torch.zeros_like(mean)
        form = QuadraticForm(precision, mean, zero, zero.sum(), precision.diagonal())
        least = form.log_partition() - log_weight
        forms.append(form._replace(value=least))
    return forms


def _divided(form, divisor):
    """Return form + divisor, or form where too little of its precision is left."""
    try:
        form.times(1 - LEAST_SHARE).plus(divisor).log_partition()
    except NotNormalizableError:
        return form
    return form.plus(divisor)


def _mixture(forms):
    """Return the normalised mixture of exp(-form) over the forms."""
    masses = torch.tensor([form.log_partition() for form in forms])
    weights = masses.double().softmax(0).clamp_min(torch.finfo(torch.float64).tiny)
    means = torch.stack([form.minimum() for form in forms])
    covariances = torch.stack([form.precision.inverse() for form in forms])
    return Gaussians().match(weights, means, (covariances + covariances.mT) / 2)


def _moments(law):
    """Return mean and covariance of a mixture."""
    weights = law.log_weights.exp()
    mean = weights @ law.means
    apart = law.means - mean
    within = (weights[:, None, None] * (law.factors @ law.factors.mT)).sum(0)
    return mean, within + (weights[:, None] * apart).T @ apart


def _one_gaussian(law):
    """Return the Gaussian with the moments of a mixture."""
    mean, covariance = _moments(law)
    return Gaussians().match(mean.new_ones(1), mean[None], covariance[None])


def _widened(law):
    """Return the mixture with a broad component over all of it."""
    mean, covariance = _moments(law)
    weights = (1 - BROAD_WEIGHT) * law.log_weights.exp()
    return Gaussians().match(
        torch.cat([weights, weights.new_tensor([BROAD_WEIGHT])]),
        torch.cat([law.means, mean[None]]),
        torch.cat([law.factors @ law.factors.mT, BROAD_FACTOR * covariance[None]]),
    )
