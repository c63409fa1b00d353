"""Ratings in any of their forms, as lists of users, items and levels."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from skebm._check import check_names, check_ratings
from skebm.exceptions import DataDomainError

COLUMNS = ["user", "item", "rating"]
"""Of a long table, one rating per row."""

MOST_LONG_COLUMNS = 5
"""Of a table with a column of ratings; wider ones are users by items."""

MOST_LEVELS = 10
"""Distinct ratings that are kept apart; more are put into this many bins."""

PRIOR = 5.0
"""Ratings at the overall mean that the mean of an item or a user starts from."""


class Listed(NamedTuple):
    """Ratings as a list: value[e] is that of items[item[e]] by users[user[e]].

    Attributes
    ----------
    users, items : ndarray
        Sorted labels.
    user, item : ndarray of shape (m,)
        Places of the labels, sorted by user.
    value : ndarray of shape (m,)
        The ratings.
    """

    users: np.ndarray
    items: np.ndarray
    user: np.ndarray
    item: np.ndarray
    value: np.ndarray


def is_long(X):
    """Tell whether X is a table with the columns user, item and rating.

    Parameters
    ----------
    X : array-like
        Ratings.

    Returns
    -------
    object
        True or False.
    """
    return hasattr(X, "columns") and set(COLUMNS) <= set(map(str, X.columns))


def read_long(X):
    """Return the columns of a long table.

    Parameters
    ----------
    X : DataFrame of shape (m, 3)
        With the columns user, item and rating.

    Returns
    -------
    user, item, value : ndarray of shape (m,)
        Labels, labels, ratings.
    """
    user, item, value = (X[name].to_numpy() for name in COLUMNS)
    value = _numbers(value)
    if not np.isfinite(value).all():
        raise DataDomainError(
            "Got ratings that are NaN or infinite in a long table. Drop those rows: "
            "what is not listed is unrated."
        )
    return user, item, value


def _numbers(value):
    """Return ratings as float64; raise if they are no numbers."""
    try:
        return value.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataDomainError(
            f"Got ratings of type {value.dtype}, such as {value[0]!r}, but expected "
            "numbers. Code them by numbers that rise with liking."
        ) from error


def refuse_long(X):
    """Raise if X is a long table where rows of ratings are read.

    Parameters
    ----------
    X : array-like
        Ratings.
    """
    if is_long(X):
        raise ValueError(
            "Got a long table, but expected a row of ratings for each user. Pass "
            "X.pivot(index='user', columns='item', values='rating'), or the labels of "
            "users and items to predict."
        )


def _refuse_other_names(X):
    """Raise if X looks like a long table whose columns have other names."""
    names = [str(name) for name in getattr(X, "columns", [])]
    if len(names) <= MOST_LONG_COLUMNS and "rating" in map(str.lower, names):
        raise ValueError(
            f"Got a table with the columns {names}, but expected user, item and rating "
            "in a long table. Rename them, for instance "
            "X.rename(columns={'userId': 'user', 'movieId': 'item'})."
        )


def listed(estimator, X):
    """Return the ratings of a training table.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set.
    X : DataFrame, array or sparse matrix
        A long table, or users by items.

    Returns
    -------
    Listed
        At least one rating, no pair twice.
    """
    if is_long(X):
        user, item, value = read_long(X)
        users, user = np.unique(user, return_inverse=True)
        items, item = np.unique(item, return_inverse=True)
        # New users come as rows of the items, as after a fit to such rows.
        check_names(estimator, pd.DataFrame(columns=items), reset=True)
    else:
        _refuse_other_names(X)
        user, item, value, n_rows = check_ratings(estimator, X, reset=True)
        names = getattr(estimator, "feature_names_in_", None)
        users = np.arange(n_rows)
        items = np.arange(estimator.n_features_in_) if names is None else names
    if not len(value):
        raise DataDomainError(
            f"{type(estimator).__name__} needs at least one rating; got a table "
            "without any. NaN is unrated in an array, zero in a sparse matrix."
        )
    order = np.lexsort([item, user])
    user, item, value = user[order], item[order], value[order]
    twice = (np.diff(user) == 0) & (np.diff(item) == 0)
    if twice.any():
        e = int(np.flatnonzero(twice)[0])
        raise ValueError(
            f"Got {twice.sum()} ratings of pairs that have one already, such as user "
            f"{users[user[e]]} and item {items[item[e]]}. Keep one rating a pair, such "
            "as the latest."
        )
    return Listed(users, items, user, item, value)


class Levels(NamedTuple):
    """The ordered levels that ratings are coded by.

    Attributes
    ----------
    values : ndarray of shape (n_levels,)
        What each level stands for, rising.
    edges : ndarray of shape (n_levels - 1,)
        Level k holds edges[k - 1] < rating <= edges[k].
    """

    values: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, ratings):
        """Return the distinct ratings, or ten bins of about equal counts.

        Parameters
        ----------
        ratings : ndarray of shape (m,)
            Training ratings.

        Returns
        -------
        Levels
            At most ten.
        """
        values = np.unique(ratings)
        if len(values) <= MOST_LEVELS:
            return cls(values, values[:-1] / 2 + values[1:] / 2)
        inner = np.quantile(ratings, np.arange(1, MOST_LEVELS) / MOST_LEVELS)
        edges = np.unique(inner[inner < values[-1]])
        codes = np.searchsorted(edges, ratings)
        kept = np.unique(codes)
        means = np.array([ratings[codes == k].mean() for k in kept])
        return cls(means, edges[kept[:-1]])

    def code(self, ratings):
        """Return the levels of ratings, shape (m,), int64.

        Parameters
        ----------
        ratings : array-like
            Ratings, a row per user.

        Returns
        -------
        object
            The levels of ratings, shape (m,), int64.
        """
        return np.searchsorted(self.edges, ratings)


def shrunk_means(value, place, n, center):
    """Return the mean rating of every item, or user, pulled to the overall mean.

    Parameters
    ----------
    value, place : ndarray of shape (m,)
        Ratings, and whose they are.
    n : int
        Items or users.
    center : float
        The overall mean.

    Returns
    -------
    ndarray of shape (n,)
        As if each also had five ratings at the overall mean.
    """
    total = np.bincount(place, value, minlength=n) + PRIOR * center
    return total / (np.bincount(place, minlength=n) + PRIOR)


def places_of(labels, known):
    """Return the places of labels among sorted known ones, -1 for others.

    Parameters
    ----------
    labels : ndarray of shape (m,)
        Labels.
    known : ndarray of shape (n,)
        Distinct labels.

    Returns
    -------
    ndarray of shape (m,)
        Of int64.
    """
    lookup = {label: place for place, label in enumerate(known.tolist())}
    return np.array([lookup.get(x, -1) for x in labels.tolist()], dtype=np.int64)
