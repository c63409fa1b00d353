"""The door in for labels: which are missing, and which were never seen."""

from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d


def check_partial_labels(estimator: Any, X: Any, y: Any) -> tuple[np.ndarray, ...]:
    """Return labels and which rows have one.

    A label is missing where y is NaN or None, and where it is -1 unless the other
    labels are all alike: -1 and 1 alone are two classes.

    Parameters
    ----------
    estimator : BaseEstimator
        For messages.
    X : ndarray of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,)
        Labels.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        The labels.
    known : ndarray of shape (n_samples,)
        Whether a row has one, bool.

    Raises
    ------
    ValueError
        If y is None, of another length, or no class label.
    """
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is "
            "None. Pass labels, -1 or NaN where a row has none."
        )
    y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    known = np.ones(len(y), dtype=bool)
    if y.dtype.kind == "f" and np.isinf(y).any():
        raise ValueError("Input y contains infinity. Pass labels, or NaN for none.")
    if y.dtype.kind in {"f", "O"}:
        known = np.array([v is not None and v == v for v in y])
    minus = np.array([not isinstance(v, str) and v == -1 for v in y])
    if len(set(y[known & ~minus])) > 1:
        known &= ~minus
    if not known.any():
        raise ValueError("Input y contains NaN or None alone. Pass some labels.")
    check_classification_targets(y[known])
    return y, known


def check_labels_seen(estimator: Any, y: Any) -> np.ndarray:
    """Return the places of labels among the classes of a fit.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``classes_`` are what ``fit`` saw, sorted.
    y : iterable
        Labels.

    Returns
    -------
    ndarray of shape (n_samples,)
        Integers from 0.
    """
    unseen = sorted({str(label) for label in y} - set(map(str, estimator.classes_)))
    if unseen:
        raise ValueError(
            f"Got labels {unseen} that were not in fit; expected some of "
            f"{estimator.classes_.tolist()}."
        )
    places: np.ndarray = np.searchsorted(estimator.classes_, y)
    return places
