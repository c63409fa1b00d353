"""The door in for labels: which are missing, and which were never seen."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d


def check_partial_labels(
    estimator: Any, X: Any, y: Any, classes: Any = None
) -> tuple[np.ndarray, ...]:
    """Return labels and which rows have one.

    A label is missing where y is NaN or None, and where it is -1 unless that is a
    class. Where the classes are not given, it is one if the other labels are all
    alike: -1 and 1 alone are two classes.

    Parameters
    ----------
    estimator : BaseEstimator
        For messages.
    X : ndarray of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,)
        Labels.
    classes : array-like of shape (n_classes,) or None, default=None
        All labels, where they are known.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        The labels.
    known : ndarray of shape (n_samples,)
        Whether a row has one, bool.

    Raises
    ------
    ValueError
        If y is None, of another length, or no class label, or if no row has a label
        and the classes are not given.
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
        known = ~np.asarray(pd.isna(y))
    minus = known.copy()
    minus[known] = [not isinstance(v, str) and v == -1 for v in y[known]]
    others = set(y[known & ~minus])
    if (len(others) > 1) if classes is None else (-1 not in list(classes)):
        known &= ~minus
    if classes is None and not known.any():
        raise ValueError("Input y contains NaN or None alone. Pass some labels.")
    if known.any():
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
    places = {label: place for place, label in enumerate(estimator.classes_.tolist())}
    unseen = sorted({str(label) for label in y if label not in places})
    if unseen:
        raise ValueError(
            f"Got labels {unseen} that were not in fit; expected some of "
            f"{estimator.classes_.tolist()}."
        )
    return np.array([places[label] for label in y], dtype=np.int64)
