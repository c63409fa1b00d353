"""z = (x - location) / scale, without overflow, and back."""

import math
import warnings
from numbers import Real

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from skebm.energies.views import Standardized, shares_unit

N_SPACED = 2000
"""Rows, at most, whose next one is looked for."""

FARTHEST = 1e15
"""Scaled values are clipped to it, so that their squares fit in single precision."""


def location_and_scale(x):
    """Return mean and standard deviation of the columns.

    Columns in one unit, such as pixels, share the root mean square of theirs: scaled
    apart, a pixel that is seldom set would outweigh all others.

    Parameters
    ----------
    x : ndarray of shape (n_samples, n_features)
        Finite rows of any size.

    Returns
    -------
    location, scale : ndarray of shape (n_features,)
        In float64; the scale of a constant column is its size, or 1 if that is 0 or
        too small to divide by.
    """
    view = Standardized().fit(torch.from_numpy(x.astype(np.float64)))
    location, scale = view.center.numpy(), view.scale.numpy()
    return location, np.where(view.varies.numpy(), scale, _own_size(location))


def column_location_and_scale(x):
    """Return mean and standard deviation of each column by itself, NaN left out.

    Parameters
    ----------
    x : ndarray of shape (n_samples, n_features)
        Rows of any size; NaN is missing, and every column has a value.

    Returns
    -------
    location, scale : ndarray of shape (n_features,)
        In float64; the scale of a constant column is its size, or 1 if that is 0 or
        too small to divide by.
    """
    x = x.astype(np.float64)
    tiny, eps = np.finfo(np.float64).tiny, np.finfo(np.float64).eps
    size = np.maximum(np.nanmax(np.abs(x), 0), tiny)
    mean, sd = np.nanmean(x / size, 0), np.nanstd(x / size, 0)
    varies = (sd > 10 * eps * np.abs(mean)) & (size * sd > tiny)
    middle = np.nanmedian(x / size, 0) * size
    location = np.where(varies, mean * size, middle)
    return location, np.where(varies, size * sd, _own_size(middle))


def middle_and_quarter_range(x):
    """Return the middle of the columns and a quarter of their ranges.

    Columns in one unit, such as pixels, share middle and range: scaled apart, a pixel
    that is seldom set would outweigh all others.

    Parameters
    ----------
    x : ndarray of shape (n_samples, n_features)
        Finite rows of any size.

    Returns
    -------
    location, scale : ndarray of shape (n_features,)
        In float64; the scale of a constant column is its size, or 1 if that is 0 or
        too small to divide by.
    """
    rows = x.astype(np.float64)
    low, high = rows.min(0), rows.max(0)
    shared = shares_unit(torch.from_numpy(rows)).numpy()
    if shared.any():
        low = np.where(shared, low[shared].min(), low)
        high = np.where(shared, high[shared].max(), high)
    location, scale = low / 2 + high / 2, high / 4 - low / 4
    info = np.finfo(np.float64)
    varies = scale > np.maximum(10 * info.eps * np.abs(location), info.tiny)
    return location, np.where(varies, scale, _own_size(location))


def row_spacing(z):
    """Return how far the next row is, in each column.

    The median over rows of min_j |z_i - z_j| / sqrt(d): noise of this sd moves a row
    about as far as the nearest other one is.

    Parameters
    ----------
    z : ndarray of shape (n, d)
        Rows; equal ones count once.

    Returns
    -------
    float
        In units of z; 0 for a single row.
    """
    rows = np.unique(z, axis=0)
    if len(rows) < 2:
        return 0.0
    some = rows[:: math.ceil(len(rows) / N_SPACED)]
    distance, _ = NearestNeighbors(n_neighbors=2).fit(rows).kneighbors(some)
    return float(np.median(distance[:, 1])) / math.sqrt(z.shape[1])


def _own_size(values):
    """Return the sizes of constant columns, 1 where they are too small to divide by."""
    size = np.abs(values)
    return np.where(size < np.finfo(np.float64).tiny, 1.0, size)


def warn_of_denormals(x, places):
    """Warn about columns whose values vary too little for a float to divide by.

    Parameters
    ----------
    x : ndarray of shape (n_samples, n_columns)
        Training rows; NaN is missing, and every column has a value.
    places : ndarray of shape (n_columns,)
        Where the columns are in the table.
    """
    spread = np.nanmax(x, 0) / 2.0 - np.nanmin(x, 0) / 2.0
    lost = (spread > 0) & (spread < np.finfo(np.float64).tiny / 2)
    if lost.any():
        warnings.warn(
            f"Columns {places[lost].tolist()} of X vary by less than 2.3e-308 and are "
            "treated as constant. Rescale them first.",
            UserWarning,
            stacklevel=2,
        )


def scaled(x, location, scale):
    """Return (x - location) / scale, clipped to +-1e15.

    Parameters
    ----------
    x : ndarray of shape (n_samples, n_features)
        Finite rows.
    location, scale : ndarray of shape (n_features,)
        Of `location_and_scale`.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        In float64.
    """
    with np.errstate(over="ignore"):
        z = x / scale - location / scale
    return np.clip(z, -FARTHEST, FARTHEST)


def given_columns(given, names, location, scale):
    """Return the places and scaled values of given columns.

    Parameters
    ----------
    given : dict or None
        Column (name or place) to value.
    names : ndarray of str or None
        Names of the columns.
    location, scale : ndarray of shape (n_features,)
        Of `location_and_scale`.

    Returns
    -------
    columns : tuple of int
        Places, in increasing order.
    values : tuple of float
        Scaled values.
    exact : tuple of float
        Values as they were given.

    Raises
    ------
    ValueError
        If a column is unknown, a value is not finite, or no column is left free.
    """
    places = {}
    for key, value in (given or {}).items():
        place = place_of(key, names, len(scale))
        if place in places or not isinstance(value, Real):
            raise ValueError(
                f"Got given={given!r}, but expected a number for each column, which is "
                f"named once; look at {key!r}."
            )
        places[place] = float(value)
    if len(places) == len(scale) or not np.isfinite(list(places.values())).all():
        raise ValueError(
            f"Got given={given!r}, but expected finite values for some of the "
            f"{len(scale)} columns. Leave at least one column out."
        )
    columns = sorted(places)
    row = np.array([[places.get(j, 0.0) for j in range(len(scale))]])
    z = scaled(row, location, scale)[0]
    exact = tuple(places[j] for j in columns)
    return tuple(columns), tuple(float(z[j]) for j in columns), exact


def place_of(key, names, n_features):
    """Return the place of a column given by name or place.

    Parameters
    ----------
    key : str or int
        Name, or place from the front or the back.
    names : ndarray of str or None
        Names of the columns.
    n_features : int
        Number of columns.

    Returns
    -------
    int
        In [0, n_features).

    Raises
    ------
    ValueError
        If there is no such column.
    """
    known = {} if names is None else {name: j for j, name in enumerate(names)}
    if key in known:
        return known[key]
    if isinstance(key, int | np.integer) and -n_features <= key < n_features:
        return int(key) % n_features
    columns = list(known) or f"0 to {n_features - 1}"
    raise ValueError(f"Got given column {key!r}, but expected one of {columns}.")
