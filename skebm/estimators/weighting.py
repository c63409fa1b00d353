"""Weights of rows as numbers of rows, for training that counts rows."""

from typing import NamedTuple

import numpy as np

from skebm._check import check_weights, refuse_few, take_rows
from skebm.estimators.merging import merged

MOST_COPIES = 10
"""Rows that a table may grow to where weights become numbers of rows, and the mean
number of equal rows from which on each counts as an observation of its own."""

BLOCK = 1024
"""Rows that are summed at once, so that they stay in the cache."""


class Counted(NamedTuple):
    """Rows as often as they count.

    Attributes
    ----------
    rows : ndarray of shape (m, d)
        Each unit as often as its weight says.
    unit : ndarray of shape (m,)
        Which unit a row is, sorted. Rows of one unit are held out together.
    units : ndarray of shape (n, d)
        Each unit once.
    weight : ndarray of shape (n,) or None
        Weights of the units; None where all are one.
    copies : int
        By which factor rows outnumber observations.
    """

    rows: np.ndarray
    unit: np.ndarray
    units: np.ndarray
    weight: np.ndarray | None
    copies: int

    @property
    def n_observations(self):
        """Rows that count as such.

        Returns
        -------
        int
            Those of the table, where its weights are whole or none.
        """
        return len(self.rows) // self.copies

    def places(self, units):
        """Return where the rows of some units are.

        Parameters
        ----------
        units : ndarray of int
            Places of units.

        Returns
        -------
        ndarray of int
            Places of rows, in the order of the units.
        """
        if self.weight is None:
            return units
        ends = np.searchsorted(self.unit, units, side="right")
        starts = np.searchsorted(self.unit, units)
        return np.concatenate(
            [np.arange(a, b) for a, b in zip(starts, ends, strict=True)]
        )


def counted(rows, sample_weight=None, *, together=True):
    """Return rows as often as their weights say.

    A row of weight two is the row twice, to the last bit of what is trained: equal rows
    are one unit, units are sorted. Rows that all differ and weigh the same stay as they
    are. Where rows repeat ten times on average, each is an observation of its own.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, d)
        Rows.
    sample_weight : array-like of shape (n_samples,) or None
        Weights >= 0, not all zero.
    together : bool, default=True
        Whether equal rows are held out together. False for bits and codes, where they
        are observations of their own; copies for fractional weights stay together.

    Returns
    -------
    Counted
        Whole weights are numbers of rows, and so are multiples of a common unit, up to
        ten times as many rows as there are; other weights become shares of ten times
        as many rows as units.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, or all are zero.
    """
    weight = check_weights(rows, sample_weight)
    if not weight.all():
        rows, weight = rows[weight > 0], weight[weight > 0]
    if weight.min() == weight.max() and all_differ(rows):
        return Counted(rows, np.arange(len(rows)), rows, None, 1)
    units, total = merged(rows, weight)
    n = len(units)
    numbers, copies = numbers_of(total, MOST_COPIES * len(rows))
    unit = np.repeat(np.arange(n), numbers)
    apart = not together or len(unit) >= MOST_COPIES * n
    if copies == 1 and apart:
        rows = units[unit]
        return Counted(rows, np.arange(len(rows)), rows, None, 1)
    return Counted(units[unit], unit, units, total, copies)


def counted_units(estimator, X, sample_weight, encode):
    """Return rows of bits, codes or other units as often as their weights say.

    Parameters
    ----------
    estimator : BaseEBM
        Named in errors.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows, as they came.
    sample_weight : array-like of shape (n_samples,) or None
        Weights >= 0, not all zero.
    encode : callable
        Maps rows of positive weight to the values of the units: no category is learned
        from a row of weight zero.

    Returns
    -------
    Counted
        Equal rows are observations of their own.
    """
    if sample_weight is not None:
        weight = check_weights(X, sample_weight)
        used = np.flatnonzero(weight)
        X, sample_weight = X if weight.all() else take_rows(X, used), weight[used]
    rows = encode(X)
    refuse_few(estimator, len(rows))
    return counted(rows, sample_weight, together=False)


def all_differ(rows):
    """Tell whether no two rows are equal; False also where it takes sorting to tell.

    Equal rows have the same sum of random multiples, which is quick to compare.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Rows.

    Returns
    -------
    bool
        False for two rows with NaN, or with sums beyond the largest number.
    """
    factors = np.random.default_rng(0).normal(size=rows.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        parts = np.array_split(rows, len(rows) // BLOCK + 1)
        sums = np.concatenate([(part * factors).sum(1) for part in parts])
    return len(np.unique(sums)) == len(rows)


def numbers_of(weight, most):
    """Return weights as numbers of rows.

    Parameters
    ----------
    weight : ndarray of shape (n,)
        Positive.
    most : int
        Largest sum of exact numbers.

    Returns
    -------
    numbers : ndarray of shape (n,), int
        Positive.
    copies : int
        1 where they are the weights or multiples of a common unit; else 10, of which
        every row has its share.
    """
    n = len(weight)
    for unit in (1.0, _common_unit(weight)):
        multiples = weight / unit
        numbers = multiples.round()
        if numbers.sum() <= most and np.allclose(numbers, multiples):
            return np.maximum(1, numbers).astype(int), 1
    ends = (np.cumsum(weight) / weight.sum() * MOST_COPIES * n).round()
    return np.maximum(1, np.diff(ends, prepend=0)).astype(int), MOST_COPIES


def _common_unit(weight):
    """Return the largest number of which all weights are multiples, by Euclid."""
    unit, others = weight.min(), np.unique(weight)
    while len(others) > 1 and unit > 1e-6 * weight.max():
        rest = others - unit * np.round(others / unit)
        rest = np.abs(rest)[np.abs(rest) > 1e-9 * others]
        if not len(rest):
            break
        others = np.unique(np.append(rest, unit))
        unit = others[0]
    return unit
