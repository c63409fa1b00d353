"""Which columns make a row strange: Shapley values of the energy."""

from functools import partial

import numpy as np

WALK_VALUES = 2**21
"""Values of the hybrid rows evaluated at once: 16 MB in float64."""


def shapley_contributions(energy, row_picker, n_rows, n_features, n_references, seed):
    """Return how much each column adds to the energy of each row.

    A row x and a reference r make hybrids that take some columns from x, the others
    from r. Walking from r to x one column at a time in a random order, a column's
    contribution is its step in E; the steps of a walk add up to E(x) - E(r) exactly.
    Contributions are averaged over one order and its reverse for every reference, so

        sum_j contribution_j(x) = E(x) - mean_r E(r).

    Parameters
    ----------
    energy : callable
        Maps hybrid rows to energies of shape (n,).
    row_picker : callable
        ``row_picker(source)`` builds hybrids: source (n, n_features) holds for every
        column the row to take it from; 0..n_rows-1 are the rows to explain, then come
        the references.
    n_rows, n_features, n_references : int
        Counts, each >= 1.
    seed : int
        Seed of the orders.

    Returns
    -------
    ndarray of shape (n_rows, n_features)
        Contributions in units of the energy.

    References
    ----------
    .. [1] Strumbelj, Kononenko (2014), Explaining prediction models and individual
       predictions with feature contributions, Knowledge and Information Systems 41.
    .. [2] Mitchell, Cooper, Frank, Holmes (2022), Sampling permutations for Shapley
       value estimation, JMLR 23.
    """
    orders = _antithetic_orders(n_features, n_references, seed)
    contributions = np.zeros((n_rows, n_features))
    per_row = len(orders) * (n_features + 1)
    block = max(1, WALK_VALUES // (per_row * n_features))
    for start in range(0, n_rows, block):
        rows = np.arange(start, min(start + block, n_rows))
        source = _walks(rows, orders, n_rows)
        e = energy(row_picker(source.reshape(-1, n_features)))
        steps = np.diff(e.reshape(len(rows), len(orders), n_features + 1), axis=2)
        for walk, (_, order) in enumerate(orders):
            contributions[np.ix_(rows, order)] += steps[:, walk] / len(orders)
    return contributions


def _antithetic_orders(n_features, n_references, seed):
    """Return (reference, order) pairs: one order and its reverse per reference."""
    rng = np.random.default_rng(seed)
    pairs = []
    for reference in range(n_references):
        order = rng.permutation(n_features)
        pairs += [(reference, order), (reference, order[::-1])]
    return pairs


def _walks(rows, orders, n_rows):
    """Return the sources, shape (len(rows), len(orders), d + 1, d), of all walks."""
    d = len(orders[0][1])
    source = np.empty((len(rows), len(orders), d + 1, d), dtype=np.int64)
    for walk, (reference, order) in enumerate(orders):
        step = np.empty(d, dtype=np.int64)
        step[order] = np.arange(d)
        taken = np.arange(d + 1)[:, None] > step
        source[:, walk] = np.where(taken, rows[:, None, None], n_rows + reference)
    return source


def row_picker(X, references):
    """Return a function from sources to hybrid rows, in X's own container.

    Parameters
    ----------
    X : ndarray or DataFrame of shape (n_rows, n_features)
        Rows to explain.
    references : ndarray or DataFrame of shape (n_references, n_features)
        Reference rows, with the same columns.

    Returns
    -------
    callable
        Maps source (n, n_features) to n hybrid rows.
    """
    if isinstance(X, np.ndarray):
        stacked = np.concatenate([X, references])
        return lambda source: np.take_along_axis(stacked, source, axis=0)

    import pandas as pd

    frame = pd.concat([X, references], ignore_index=True)
    return partial(_pick_by_column, frame)


def _pick_by_column(frame, source):
    """Build hybrid rows column by column, so that every column keeps its dtype."""
    columns = {
        name: frame[name].array.take(source[:, place])
        for place, name in enumerate(frame.columns)
    }
    return type(frame)(columns)
