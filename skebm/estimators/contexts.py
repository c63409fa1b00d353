"""What a conditional model sees: rows as values of units, and rows before them."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_array, check_consistent_length

from skebm.energies import (
    BernoulliUnits,
    CategoricalUnits,
    GaussianUnits,
    MixedUnits,
)
from skebm.estimators.scaling import location_and_scale, scaled
from skebm.exceptions import DataDomainError

MOST_CODES = 10_000
"""Codes of one column beyond which they are taken for a mistake."""

SIMPLE = {"bernoulli": BernoulliUnits, "gaussian": GaussianUnits}


class Given(NamedTuple):
    """The arguments of a reader, passed on as one.

    Attributes
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows.
    context : array-like of shape (n_samples, n_context) or None
        Their contexts.
    lengths : array-like of shape (n_sequences,) or None
        Lengths of the sequences in X.
    """

    X: Any
    context: Any = None
    lengths: Any = None


class VisibleColumns:
    """The columns of X as values of units.

    Parameters
    ----------
    units : {"bernoulli", "categorical", "gaussian"} or Units
        Kinds of the columns; "categorical" takes as many codes as X has.
    rows : ndarray of shape (n_samples, n_features)
        Training rows.
    """

    def __init__(self, units, rows):
        if units == "categorical":
            top = np.clip(np.nan_to_num(rows.max(0)), 1, MOST_CODES).astype(int)
            self.units = CategoricalUnits([int(k) + 1 for k in top])
        else:
            self.units = SIMPLE[units]() if isinstance(units, str) else clone(units)
        d = rows.shape[1]
        self.codes = np.zeros(d, dtype=int)
        self.bits = np.zeros(d, dtype=bool)
        self._mark(clone(self.units).build(d), 0, d)
        self.real = ~self.bits & (self.codes == 0)
        self.location, self.scale = np.zeros(d), np.ones(d)
        if self.real.any():
            found = location_and_scale(rows[:, self.real])
            self.location[self.real], self.scale[self.real] = found

    def _mark(self, units, first, n):
        """Note the kinds of n columns from ``first`` on."""
        if isinstance(units, MixedUnits):
            for part, width in units.parts:
                self._mark(part, first, width)
                first += width
        elif isinstance(units, CategoricalUnits):
            self.codes[first : first + n] = units.states()
        elif isinstance(units, BernoulliUnits):
            self.bits[first : first + n] = True

    def encode(self, rows, name):
        """Return rows as values of the units, real columns scaled.

        Parameters
        ----------
        rows : ndarray of shape (n_samples, n_features)
            Finite rows.
        name : str
            The estimator's, for messages.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In float64.

        Raises
        ------
        DataDomainError
            If a column of codes or bits holds something else.
        """
        rows = rows.astype(np.float64)
        highest = np.where(self.bits, 1, self.codes - 1)
        bad = (rows < 0) | (rows > highest) | (rows != np.round(rows))
        bad &= ~self.real
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise DataDomainError(self._advice(name, rows[row, column], column))
        return np.where(self.real, scaled(rows, self.location, self.scale), rows)

    def decode(self, values):
        """Return values of the units as rows in the units of X.

        Parameters
        ----------
        values : ndarray of shape (n_samples, n_features)
            Values of the units.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            In float64.
        """
        return values * self.scale + self.location

    def _advice(self, name, value, column):
        """Return what to say of a value that is no value of its column."""
        if self.bits[column]:
            return (
                f"{name} needs 0 or 1 in column {column}; got {value:g}. Pass "
                "units='categorical' for codes, or units='gaussian' for real numbers."
            )
        if value >= 0 and value == round(value):
            return (
                f"{name} needs codes 0 to {self.codes[column] - 1} in column {column}; "
                f"got {value:g}. Pass units=CategoricalUnits(n_categories) with room "
                "for codes that training rows lack, at most 10,000."
            )
        return (
            f"{name} needs codes 0, 1, 2, ... in column {column}; got {value:g}. "
            "Encode with OrdinalEncoder, or pass units='gaussian' for real numbers."
        )


class ContextColumns:
    """Given features, scaled.

    Parameters
    ----------
    context : array-like of shape (n_samples, n_context) or None
        Those of the training rows.
    n_rows : int
        Rows of X.
    """

    def __init__(self, context, n_rows):
        self.n, self.names = 0, None
        self.location, self.scale = np.zeros(0), np.ones(0)
        if context is None:
            return
        rows = _checked_context(context, n_rows)
        self.n, self.names = rows.shape[1], _names(context)
        found = [location_and_scale(rows[:, [j]]) for j in range(self.n)]
        self.location, self.scale = np.concatenate(found, axis=1)

    def encode(self, context, n_rows):
        """Return the scaled features of rows.

        Parameters
        ----------
        context : array-like of shape (n_rows, n_context) or None
            Features, with the columns seen in ``fit``.
        n_rows : int
            Rows that they belong to.

        Returns
        -------
        ndarray of shape (n_rows, n_context)
            In float64.

        Raises
        ------
        ValueError
            If they are missing, or are other columns than in ``fit``.
        """
        if context is None and not self.n:
            return np.zeros((n_rows, 0))
        n_seen = 0 if context is None else np.shape(context)[-1]
        if n_seen != self.n:
            raise ValueError(
                f"Got a context of {n_seen} columns, but fit saw {self.n}. Pass "
                "context= with the same columns to fit and to every other method."
            )
        rows = _checked_context(context, n_rows)
        names = _names(context)
        if None not in (names, self.names) and names != self.names:
            raise ValueError(
                f"Got a context with columns {names}, but fit saw {self.names}. Pass "
                "the same columns in the same order."
            )
        return scaled(rows, self.location, self.scale)


def _checked_context(context, n_rows):
    """Return a context as a finite float table of n_rows rows."""
    rows = check_array(context, dtype=np.float64, input_name="context")
    check_consistent_length(np.empty(n_rows), rows)
    return rows


def _names(table):
    """Return the column names of a DataFrame, None for an array."""
    return list(table.columns) if hasattr(table, "columns") else None


def checked_lengths(lengths, n_rows, n_lags):
    """Return the lengths of the sequences in n_rows rows.

    Parameters
    ----------
    lengths : array-like of shape (n_sequences,) or None
        None means one sequence.
    n_rows : int
        What they sum to.
    n_lags : int
        Rows before that a row depends on.

    Returns
    -------
    ndarray of int
        The lengths.

    Raises
    ------
    ValueError
        If they are not integers >= 1 that sum to n_rows, or rows do not depend on
        the rows before them.
    """
    if lengths is None:
        return np.array([n_rows])
    if not n_lags:
        raise ValueError(
            "Got lengths with n_lags=0, where no row depends on the rows before it. "
            "Pass n_lags=1 or more, or leave lengths out."
        )
    found = np.asarray(lengths)
    whole = found.ndim == 1 and found.dtype.kind in "iu"
    if not whole or not len(found) or found.min() < 1 or found.sum() != n_rows:
        raise ValueError(
            f"Got lengths={lengths!r}, but expected integers >= 1 that sum to the "
            f"{n_rows} rows of X."
        )
    return found


def lagged(values, lengths, n_lags):
    """Return the rows before each row of the same sequence.

    Parameters
    ----------
    values : ndarray of shape (n, d)
        Rows of sequences, one after the other.
    lengths : ndarray of int
        Of the sequences.
    n_lags : int
        How far back.

    Returns
    -------
    ndarray of shape (n, n_lags * d)
        The previous row first; NaN where a sequence has none.
    """
    starts = np.cumsum(lengths) - lengths
    age = np.arange(len(values)) - np.repeat(starts, lengths)
    found = np.full((len(values), n_lags, values.shape[1]), np.nan)
    for lag in range(1, n_lags + 1):
        has = np.flatnonzero(age >= lag)
        found[has, lag - 1] = values[has - lag]
    return found.reshape(len(values), -1)
