"""The door in: X to a validated array; the only file with sklearn's private names."""

import warnings
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import _fit_context
from sklearn.utils import _safe_indexing as take_rows
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import _BaseComposition as Composition
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data
from sklearn.utils.validation import _num_samples as num_samples

from skebm.exceptions import DataDomainError

__all__ = [
    "Composition",
    "HasMethods",
    "Interval",
    "StrOptions",
    "check_bits",
    "check_labelled",
    "check_names",
    "check_ratings",
    "check_rows",
    "check_table",
    "check_targets",
    "check_units",
    "check_weights",
    "fit_context",
    "meta_fit_context",
    "num_samples",
    "refuse_few",
    "take_rows",
]

fit_context = _fit_context(prefer_skip_nested_validation=True)
meta_fit_context = _fit_context(prefer_skip_nested_validation=False)


def check_rows(estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
    """Return X as a finite C-ordered float array, float32 kept, -0.0 made 0.0.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set or compared.
    X : array-like of shape (n_samples, n_features)
        Rows.
    reset : bool
        True in ``fit``: at least two rows are needed.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        A new array, float32 or float64.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        X = validate_data(
            estimator,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            ensure_min_samples=2 if reset else 1,
        )
    if reset:
        _warn_denormal(X)
    rows: np.ndarray = np.add(X, 0.0, order="C")
    return rows


def check_units(
    estimator: Any, X: Any, *, reset: bool, allow_nan: bool = True
) -> np.ndarray:
    """Return X as a dense float array, sparse X too; NaN means missing.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set or compared.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Rows.
    reset : bool
        True in ``fit``: every column needs a value.
    allow_nan : bool, default=True
        Whether entries may be missing.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        A new array, float32 or float64, without infinities.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        X = validate_data(
            estimator,
            X,
            reset=reset,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
            ensure_all_finite="allow-nan" if allow_nan else True,
        )
    rows: np.ndarray = np.add(X.toarray() if issparse(X) else X, 0.0, order="C")
    if reset and np.isnan(rows).all(0).any():
        empty = np.flatnonzero(np.isnan(rows).all(0)).tolist()
        raise ValueError(
            f"Columns {empty} of X hold nothing but NaN. Drop them, or pass rows that "
            "have a value there."
        )
    return rows


def check_ratings(
    estimator: Any, X: Any, *, reset: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return the ratings in a table of rows by items, as a list.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set or compared.
    X : array-like or sparse matrix of shape (n_rows, n_items)
        NaN is unrated; in a sparse matrix what is not stored, and zero, are too.
    reset : bool
        True in ``fit``.

    Returns
    -------
    row, item : ndarray of shape (m,)
        Places, sorted by row.
    value : ndarray of shape (m,)
        The ratings, float64.
    n_rows : int
        Rows of X.
    """
    X = validate_data(
        estimator,
        X,
        reset=reset,
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        ensure_all_finite="allow-nan",
    )
    if issparse(X):
        table = X.tocoo()
        rated = (table.data != 0) & ~np.isnan(table.data)
        row, item = table.row[rated].astype(np.int64), table.col[rated].astype(np.int64)
        order = np.argsort(row, kind="stable")
        value = table.data[rated].astype(np.float64)
        return row[order], item[order], value[order], X.shape[0]
    row, item = np.nonzero(~np.isnan(X))
    return row, item, X[row, item].astype(np.float64), X.shape[0]


def check_labelled(estimator: Any, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return X as a finite dense float array, sparse X too, and labels as they are.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,)
        Labels, of two classes or more.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
        A new array, float32 or float64.
    y : ndarray of shape (n_samples,)
        The labels.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        X, y = validate_data(
            estimator, X, y, accept_sparse="csr", dtype=[np.float64, np.float32]
        )
    check_classification_targets(y)
    if len(np.unique(y)) < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs labels of two classes or more; got one "
            f"class, {y[0]!r}. Pass rows of another class too."
        )
    rows = np.add(X.toarray() if issparse(X) else X, 0.0, order="C")
    return rows, y


def check_weights(X: np.ndarray, sample_weight: Any) -> np.ndarray:
    """Return weights of rows, ones for None.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Rows.
    sample_weight : array-like of shape (n_samples,), float or None
        Weights >= 0, not all zero.

    Returns
    -------
    ndarray of shape (n_samples,)
        In float64.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, or all are zero.
    """
    weights: np.ndarray = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights


def check_targets(
    estimator: Any, X: Any, y: Any, sample_weight: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return X, targets and weights as finite float arrays.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set.
    X : array-like of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Targets.
    sample_weight : array-like of shape (n_samples,) or None
        Not negative, not all zero; None is one for each row.

    Returns
    -------
    X, y : ndarray
        New arrays, float32 or float64.
    weight : ndarray of shape (n_samples,)
        Float64.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        X, y = validate_data(
            estimator,
            X,
            y,
            dtype=[np.float64, np.float32],
            multi_output=True,
            y_numeric=True,
        )
    _warn_denormal(X)
    weight = check_weights(X, sample_weight)
    return np.add(X, 0.0, order="C"), np.asarray(y).astype(np.float64), weight


def check_bits(
    estimator: Any, rows: np.ndarray, advice: str = "use GaussianRBM"
) -> np.ndarray:
    """Return rows as bits or probabilities of bits, NaN where missing.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``binarize`` is the value above which entries are ones; None leaves them.
    rows : ndarray of shape (n_samples, n_features)
        Checked rows.
    advice : str, default="use GaussianRBM"
        What to try on values outside [0, 1] beside binarising and scaling.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        In [0, 1].

    Raises
    ------
    DataDomainError
        If values lie outside [0, 1] and ``binarize`` is None.
    """
    if estimator.binarize is not None:
        bits = (rows > estimator.binarize).astype(rows.dtype)
        return np.where(np.isnan(rows), rows, bits)
    low, high = np.nanmin(rows, initial=0.0), np.nanmax(rows, initial=1.0)
    if low < 0 or high > 1:
        raise DataDomainError(
            f"{type(estimator).__name__} needs X in [0, 1]; got values in "
            f"[{low:g}, {high:g}]. Pass binarize=0.0, scale with MinMaxScaler, or "
            f"{advice}."
        )
    return rows


def check_cells(estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
    """Return X as a dense array of any type, sparse X too; None and NaN mean missing.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set or compared.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Rows of numbers, strings or other objects, not a DataFrame.
    reset : bool
        True in ``fit``.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        In the type of X, without infinities.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        X = validate_data(
            estimator,
            X,
            reset=reset,
            accept_sparse="csr",
            dtype=None,
            ensure_all_finite="allow-nan",
        )
    rows: np.ndarray = X.toarray() if issparse(X) else X
    return rows


def refuse_few(estimator: Any, n_samples: int) -> None:
    """Raise scikit-learn's message on fewer than two rows."""
    if n_samples < 2:
        raise ValueError(
            f"Found array with {n_samples} sample(s) while a minimum of 2 is required "
            f"by {type(estimator).__name__}; got n_samples={n_samples}."
        )


def check_names(estimator: Any, X: Any, *, reset: bool) -> None:
    """Set or compare the number and the names of X's columns, values unseen."""
    _refuse_vector(X)
    validate_data(estimator, X, reset=reset, skip_check_array=True)


def check_table(estimator: Any, X: Any) -> None:
    """Check that X is a dense table of two rows or more, values unseen."""
    if issparse(X):
        raise TypeError(
            "Sparse data was passed for X, but dense data is required. "
            "Use '.toarray()' to convert to a dense numpy array."
        )
    _refuse_vector(X)
    check_names(estimator, X, reset=True)
    refuse_few(estimator, num_samples(X))


def _refuse_vector(X: Any) -> None:
    """Raise scikit-learn's message on a one-dimensional X."""
    if np.ndim(X) == 1:
        raise ValueError(
            "Expected 2D array, got 1D array instead. Reshape your data using "
            "array.reshape(-1, 1) or array.reshape(1, -1)."
        )


def _warn_denormal(X: np.ndarray) -> None:
    """Warn about columns whose values vary too little for a float to divide by."""
    spread = X.max(0) / 2.0 - X.min(0) / 2.0
    lost = np.flatnonzero((spread > 0) & (spread < np.finfo(np.float64).tiny / 2))
    if len(lost):
        warnings.warn(
            f"Columns {lost.tolist()} of X vary by less than 2.3e-308 and are treated "
            "as constant. Rescale them first.",
            UserWarning,
            stacklevel=4,
        )
