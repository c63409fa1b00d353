"""Any density as an energy, -score_samples(x), and any classifier, -log sum exp f."""

import inspect
from copy import copy

import numpy as np
from scipy.special import logsumexp
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline

from skebm._check import take_rows

LARGEST_ENERGY = 1e300
"""Infinite energies are clipped to it, so that scores stay finite."""


def refuse_without_energy(estimator):
    """Raise where an estimator has no energy, or needs labels to be fitted.

    Parameters
    ----------
    estimator : estimator
        With ``score_samples``, ``decision_function`` or ``predict_proba``.

    Raises
    ------
    ValueError
        If it is a classifier that is not frozen or has no logits, or something else
        without ``score_samples``.
    """
    name = type(last_step(estimator)).__name__
    if is_classifier(estimator) and not isinstance(estimator, FrozenEstimator):
        raise ValueError(
            f"Got the classifier {name}, but the fit of a detector has no labels to "
            "train it with. Fit it first and pass FrozenEstimator(classifier); rows "
            "that it has not seen then calibrate the detector."
        )
    if hasattr(estimator, "score_samples"):
        return
    if not is_classifier(estimator):
        raise ValueError(
            f"Got {name}, which has no score_samples and is no classifier, so its "
            "energy is not known. Pass an estimator with score_samples."
        )
    if not hasattr(estimator, "decision_function"):
        raise ValueError(
            f"Got {name}, which has probabilities but no logits: they sum to one in "
            "every row, so their energy would be constant. Pass a classifier with "
            "decision_function, such as LogisticRegression, or JEMClassifier."
        )


def last_step(estimator):
    """Return what frozen estimators, pipelines and fitted searches end in.

    Parameters
    ----------
    estimator : estimator
        Any.

    Returns
    -------
    estimator
        The one that is wrapped most deeply.
    """
    while True:
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif isinstance(estimator, Pipeline):
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return estimator


def wrapped_log_partition(estimator):
    """Return log Z of what `wrapped_energy` returns.

    Parameters
    ----------
    estimator : estimator
        Fitted.

    Returns
    -------
    float or None
        0.0 for a density; None for a classifier's logits, and for scores whose own
        ``log_partition_`` is None.
    """
    known = getattr(last_step(estimator), "log_partition_", 0.0) is not None
    return 0.0 if known and hasattr(estimator, "score_samples") else None


def class_logits(estimator, X):
    """Return a classifier's logits from its ``decision_function``.

    Parameters
    ----------
    estimator : classifier
        Fitted.
    X : ndarray or DataFrame of shape (n_samples, n_features)
        Rows.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
        Float64. One column f becomes -f/2 and f/2: their softmax is 1 / (1 + exp(-f)),
        and E does not change if the two classes trade names, as it would for 0 and f.

    Raises
    ------
    ValueError
        If the columns compare pairs of classes.
    """
    f = np.asarray(estimator.decision_function(X), dtype=np.float64)
    if f.ndim == 1:
        return np.stack([-f / 2, f / 2], 1)
    last, n_classes = last_step(estimator), len(estimator.classes_)
    if f.shape[1] != n_classes or _compares_pairs(last):
        raise ValueError(
            f"The decision_function of {type(last).__name__} has {f.shape[1]} columns "
            f"for {n_classes} classes, one for each pair of them (one-vs-one), but an "
            "energy needs a logit for each class. Pass "
            "decision_function_shape='ovr'."
        )
    return f


def _compares_pairs(classifier):
    """Tell whether ``decision_function`` is asked for columns of pairs."""
    return getattr(classifier, "decision_function_shape", "ovr") == "ovo"


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


def refuse_temperature(estimator):
    """Raise if an estimator's energy has no temperature.

    Parameters
    ----------
    estimator : estimator or None
        None is the default energy.
    """
    if estimator is None or hasattr(estimator, "score_samples"):
        raise ValueError(
            f"Got a temperature for estimator={estimator!r}, but expected 1.0, since "
            "only the logits of a classifier have another. Leave it out."
        )


def wrapped_energy(estimator, X, temperature=1.0):
    """Return -score_samples(X), or -T log sum_k exp(f_k(X) / T), infinities clipped.

    Parameters
    ----------
    estimator : estimator
        Fitted, with ``score_samples``, or a classifier with logits f (`class_logits`).
    X : ndarray or DataFrame of shape (n_samples, n_features)
        Rows.
    temperature : float, default=1.0
        T > 0, of logits alone.

    Returns
    -------
    ndarray of shape (n_samples,)
        Energies, float64, finite.

    Raises
    ------
    ValueError
        If the estimator returns NaN.
    """
    if hasattr(estimator, "score_samples"):
        method = "score_samples"
        energy = -np.asarray(estimator.score_samples(X), dtype=np.float64)
    else:
        method = "decision_function"
        logits = class_logits(estimator, X) / temperature
        energy = -temperature * logsumexp(logits, axis=1)
    if np.isnan(energy).any():
        raise ValueError(
            f"{type(estimator).__name__}.{method} returned NaN for "
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
