"""Small tables in the domain of an estimator: real columns, bits or codes."""

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.utils import get_tags

N_CODES = 3

COLUMNS = {"MixedRBM": "real"}
"""What the columns of an estimator are where its parameters and tags do not tell."""

STRICT = {"binarize": None, "handle_unknown": "error"}
"""Parameters with which an estimator takes its own domain and nothing else."""


def columns_of(estimator):
    """Return what the columns of an estimator are: "bits", "codes" or "real"."""
    name = type(estimator).__name__
    if name in COLUMNS:
        return COLUMNS[name]
    if "binarize" in estimator.get_params():
        return "bits"
    return "codes" if get_tags(estimator).input_tags.categorical else "real"


def rows_of(kind, rng, n, width=3):
    """Return n rows of independent columns; every code comes in every column."""
    if kind == "real":
        place, scale = np.resize([0.0, 100.0, -3.0], width), [1.0, 20.0, 0.1]
        return rng.normal(size=(n, width)) * np.resize(scale, width) + place
    rare = rng.random((n, width)) < 0.1
    if kind == "bits":
        return (rare ^ (np.arange(width) % 2 == 1)).astype(float)
    rows = np.where(rare, rng.integers(1, N_CODES, (n, width)), 0.0)
    for code in range(N_CODES):
        rows[(np.arange(width) + code) % n, np.arange(width)] = code
    return rows


def typical_row(kind, X):
    """Return a row where most rows are, shape (1, n_features)."""
    return X.mean(0)[None] if kind == "real" else np.median(X, axis=0)[None]


def far_row(kind, X):
    """Return a row that is strange in every column, shape (1, n_features)."""
    if kind == "real":
        return X.mean(0)[None] + 20 * X.std(0)
    return far_rows(kind, typical_row(kind, X))


def far_rows(kind, rows):
    """Return a row far from each of the rows."""
    return {"real": 3 * rows, "bits": 1 - rows, "codes": N_CODES - 1 - rows}[kind]


def with_holes(rng, rows, share=0.2):
    """Return the rows with entries missing in every second of them."""
    holes = rng.random(rows.shape) < share
    holes[::2] = False
    return np.where(holes, np.nan, rows).astype(rows.dtype)


def strict(estimator):
    """Return the estimator, set to refuse what lies outside its domain."""
    known = STRICT.keys() & estimator.get_params()
    return estimator.set_params(**{name: STRICT[name] for name in known})


def fit(estimator, X):
    """Fit, with a y that follows the first column where the estimator wants one."""
    if not is_classifier(estimator) and not is_regressor(estimator):
        return estimator.fit(X)
    first = np.asarray(X)[:, 0].astype(float)
    if is_regressor(estimator):
        return estimator.fit(X, 2 * np.nan_to_num(first) + np.arange(len(first)) % 3)
    return estimator.fit(X, np.where(first > np.nanmedian(first), "up", "down"))


def draws(estimator, X, n):
    """Return n draws, of targets of the first rows where the estimator draws those."""
    if is_regressor(estimator):
        return estimator.sample(X[:2], n)
    return estimator.sample(n)
