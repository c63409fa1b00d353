"""Equal rows of a table as one row, their weights added."""

import numpy as np


def merged(table, weight):
    """Return the distinct rows of positive weight, sorted, their weights added.

    A row of weight two is then the same as the row twice, to the last bit.

    Parameters
    ----------
    table : ndarray of shape (n, d)
        Rows.
    weight : ndarray of shape (n,)
        Not negative.

    Returns
    -------
    rows : ndarray of shape (m, d)
        Sorted by their values.
    weight : ndarray of shape (m,)
        Positive.
    """
    used = weight > 0
    rows, place = np.unique(table[used], axis=0, return_inverse=True)
    return rows, np.bincount(place.ravel(), weight[used], minlength=len(rows))
