"""Which rows a fit sees and which it holds out."""

import numpy as np
from sklearn.model_selection import KFold

N_FOLDS = 5

N_FEWEST = 20
"""Fewer rows get a single Gaussian and keep no row out."""


def can_hold_out(table):
    """Tell whether there are rows enough to keep some out.

    Parameters
    ----------
    table : Counted
        Rows.

    Returns
    -------
    bool
        For 20 observations, not all of them equal.
    """
    return table.n_observations >= N_FEWEST and len(table.units) >= N_FOLDS


def folds(table, n_folds, seed):
    """Return the places of training and held-out rows of every fold.

    Parameters
    ----------
    table : Counted
        Rows; those of one unit stay together.
    n_folds : int
        Number of folds, at most that of units.
    seed : int
        Seed of the split.

    Returns
    -------
    list of (ndarray, ndarray)
        Places of rows.
    """
    splitter = KFold(n_folds, shuffle=True, random_state=seed)
    return [
        (table.places(train), table.places(held_out))
        for train, held_out in splitter.split(table.units)
    ]


def holdout(table, fraction, seed):
    """Return the places of training and held-out rows.

    Parameters
    ----------
    table : Counted
        Rows; those of one unit stay together.
    fraction : float
        Share of held-out units.
    seed : int
        Seed of the split.

    Returns
    -------
    train, held_out : ndarray
        Places of rows, at least one each.
    """
    train, held_out = split(len(table.units), fraction, seed)
    return table.places(train), table.places(held_out)


def split(n_rows, fraction, seed):
    """Return the places of training and of held-out rows.

    Parameters
    ----------
    n_rows : int
        Rows in all.
    fraction : float
        Share to hold out; at least one row stays on either side.
    seed : int
        Of the shuffle.

    Returns
    -------
    training, held_out : ndarray of int
        In random order.
    """
    order = np.random.default_rng(seed).permutation(n_rows)
    n_held_out = min(n_rows - 1, max(1, round(fraction * n_rows)))
    return order[n_held_out:], order[:n_held_out]
