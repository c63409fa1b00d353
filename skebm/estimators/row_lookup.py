"""Which rows are stored ones, and whether chance explains how many are."""

import numpy as np
from scipy.stats import betabinom

UNLIKELY = 1e-4
"""Chance below which rows are taken for those of ``fit``."""


class RowLookup:
    """Finds a row among stored rows by its exact values.

    Parameters
    ----------
    rows : ndarray of shape (m, d)
        Stored rows; the first of equal rows stands for all.

    Attributes
    ----------
    twin : ndarray of shape (m,)
        The place of the second of equal rows, at the place of the first; -1 elsewhere.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.twin = np.full(len(rows), -1)
        self._place: dict[bytes, int] = {}
        for place, row in enumerate(rows):
            first = self._place.setdefault(row.tobytes(), place)
            if first != place and self.twin[first] < 0:
                self.twin[first] = place

    def find(self, X: np.ndarray) -> np.ndarray:
        """Return the place of each row of X among the stored rows, -1 for none.

        Parameters
        ----------
        X : ndarray of shape (n, d)
            Rows.

        Returns
        -------
        ndarray of shape (n,)
            Places of the first of equal rows.
        """
        with np.errstate(over="ignore"):
            X = X.astype(self.rows.dtype, copy=False)
        return np.array([self._place.get(row.tobytes(), -1) for row in X])

    def n_shared(self, X: np.ndarray) -> int | None:
        """Return how many rows of X are stored; None if few are or chance explains it.

        Few are less than half. Chance finds a new row among the stored ones as often as
        a stored row has an equal, a share that is known up to a Beta law. The whole
        stored table is never chance.

        Parameters
        ----------
        X : ndarray of shape (n, d)
            Rows.

        Returns
        -------
        int or None
            Number of rows.
        """
        found, stored = self.find(X), self.find(self.rows)
        n_found, m = int((found >= 0).sum()), len(self.rows)
        counts = np.bincount(stored, minlength=m)
        if (np.bincount(found[found >= 0], minlength=m) >= counts).all():
            return n_found
        if 2 * n_found < len(X):
            return None
        n_repeated = int((counts[stored] > 1).sum())
        chance = betabinom.sf(n_found - 1, len(X), 1 + n_repeated, 1 + m - n_repeated)
        return n_found if chance < UNLIKELY else None

    def __reduce__(self) -> tuple[type, tuple[np.ndarray]]:
        """Pickle the rows alone."""
        return RowLookup, (self.rows,)
