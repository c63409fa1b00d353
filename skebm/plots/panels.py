"""What the displays share: axes, and tables with named columns."""

import numpy as np

MOST_PANELS = 6
"""Columns that a display shows unless it is told which."""


def axes_or_new(ax, n_panels, *, across=False, **shared):
    """Return the axes to draw on.

    Parameters
    ----------
    ax : Axes, sequence of Axes or None
        What the user gave.
    n_panels : int
        Axes that are needed.
    across : bool, default=False
        Put new ones side by side instead of one below the other.
    **shared : bool
        ``sharex`` and ``sharey`` of ``matplotlib.pyplot.subplots``.

    Returns
    -------
    ndarray of Axes of shape (n_panels,)
        The given ones, or those of a new figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there are more or fewer than ``n_panels``.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            'Plots need matplotlib. Install it with pip install "skebm[plots]".'
        ) from error
    if ax is None:
        n_rows, n_columns = (1, n_panels) if across else (n_panels, 1)
        _, ax = pyplot.subplots(
            n_rows,
            n_columns,
            figsize=(1.6 + 3.8 * n_columns, max(4.0, 0.6 + 1.7 * n_rows)),
            layout="constrained",
            **shared,
        )
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != n_panels:
        raise ValueError(
            f"Got {len(axes)} axes, but expected {n_panels}: one per panel."
        )
    return axes


def table_of(estimator, X):
    """Return X as a DataFrame.

    Parameters
    ----------
    estimator : estimator
        Fitted; it may know the names of the columns.
    X : array-like of shape (n_samples, n_features)
        Rows.

    Returns
    -------
    DataFrame of shape (n_samples, n_features)
        The columns have their names, or else their places.
    """
    import pandas as pd

    if isinstance(X, pd.DataFrame):
        return X
    names = getattr(estimator, "feature_names_in_", None)
    return pd.DataFrame(np.asarray(X), columns=names)


def chosen_columns(known, columns=None):
    """Return the names of columns that are given by name or place.

    Parameters
    ----------
    known : list
        Names of all columns.
    columns : iterable of int or str or None, default=None
        Names or places; None is the first six.

    Returns
    -------
    list
        Names.

    Raises
    ------
    ValueError
        If there is no such column.
    """
    if columns is None:
        return known[:MOST_PANELS]
    return [_name(known, column) for column in columns]


def label(name):
    """Return what an axis calls a column.

    Parameters
    ----------
    name : int or str
        Place or name.

    Returns
    -------
    str
        The name, or x and the place.
    """
    return name if isinstance(name, str) else f"x{name}"


def _name(known, column):
    """Return the name of one column that is given by name or place."""
    if column in known:
        return column
    if isinstance(column, int | np.integer) and 0 <= column < len(known):
        return known[column]
    raise ValueError(
        f"Got column {column!r}, but expected one of {known} or a place below "
        f"{len(known)}."
    )
