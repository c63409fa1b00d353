"""Labels, some of them missing: codes, weights, and guesses from the neighbours."""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import kneighbors_graph
from sklearn.semi_supervised import LabelSpreading
from sklearn.utils.class_weight import compute_class_weight

from skebm.estimators.merging import merged
from skebm.estimators.weighting import MOST_COPIES, numbers_of

N_NEIGHBORS = 10
"""Neighbours from which a row without a label takes one."""

SHARPNESS = 10.0
"""Factor on squared distances in units of those to the tenth neighbour."""

CLAMPING = 0.95
"""Share of a row's label that comes from its neighbours in one step."""


class LabelledRows(NamedTuple):
    """Distinct rows with labels and weights.

    Attributes
    ----------
    z : ndarray of shape (n, d)
        Scaled rows.
    codes : ndarray of shape (n,)
        Places of the labels among the classes; -1 is unlabelled.
    weights : ndarray of shape (n,)
        Weights > 0: how many rows of the data this one stands for, by their weights.
    """

    z: np.ndarray
    codes: np.ndarray
    weights: np.ndarray

    def take(self, places):
        """Return some of the rows.

        Parameters
        ----------
        places : ndarray
            Places or mask.

        Returns
        -------
        LabelledRows
            Those rows.
        """
        return LabelledRows(*(column[places] for column in self))

    def repeated(self):
        """Return each row as often as its weight says, for training that counts rows.

        Returns
        -------
        LabelledRows
            With the same sum of weights. Multiples of the least weight are exact, up
            to ten times as many rows; else numbers are near to shares of as many.
        """
        n = len(self.weights)
        counts, _ = numbers_of(self.weights / self.weights.min(), MOST_COPIES * n)
        rows = self._replace(weights=self.weights / counts)
        return rows.take(np.repeat(np.arange(n), counts))


def labelled_rows(z, codes, weights):
    """Return rows with those of no weight left out and equal ones merged.

    Parameters
    ----------
    z : ndarray of shape (n, d)
        Rows.
    codes : ndarray of shape (n,)
        Places of labels, -1 for none.
    weights : ndarray of shape (n,)
        Weights >= 0.

    Returns
    -------
    LabelledRows
        Sorted by their values.
    """
    distinct, total = merged(np.column_stack([z, codes]), weights)
    return LabelledRows(distinct[:, :-1], distinct[:, -1].astype(int), total)


def class_factors(class_weight, classes, y):
    """Return the factor on the loss of each class.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        As in scikit-learn.
    classes : ndarray of shape (n_classes,)
        Labels.
    y : ndarray of shape (n,)
        Labels of the labelled rows.

    Returns
    -------
    ndarray of shape (n_classes,)
        >= 0.
    """
    factors = compute_class_weight(class_weight, classes=classes, y=y)
    if not (factors >= 0).all():
        raise ValueError(
            f"Got class_weight={class_weight!r}, but expected weights >= 0. Give a "
            "class that shall not count the weight 0."
        )
    return factors


def label_shares(rows, n_classes):
    """Return the probabilities of each row's labels.

    Parameters
    ----------
    rows : LabelledRows
        Some or all of them labelled.
    n_classes : int
        Classes.

    Returns
    -------
    ndarray of shape (n, n_classes)
        One-hot where a row has a label; else what scikit-learn's `LabelSpreading`
        over nearest neighbours finds.
    """
    shares = np.eye(n_classes)[np.maximum(rows.codes, 0)]
    unknown = rows.codes < 0
    if unknown.any():
        shares[unknown] = _spread(rows, n_classes)[unknown]
    return shares


def _spread(rows, n_classes):
    """Return the label probabilities that spread over a graph of neighbours."""
    model = LabelSpreading(kernel=_affinity, alpha=CLAMPING, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Rows that no label reaches divide zero by zero inside.
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(rows.z, rows.codes)
    found = np.zeros((len(rows.z), n_classes))
    found[:, model.classes_] = np.nan_to_num(model.label_distributions_)
    lost = found.sum(1) == 0
    base = np.bincount(rows.codes[rows.codes >= 0], minlength=n_classes)
    found[lost] = base / base.sum()
    return found / found.sum(1, keepdims=True)


def _affinity(X, Y):
    """Return exp(-10 |x_i - x_j|^2 / (s_i s_j)) of neighbours, a sparse matrix.

    s_i is the distance of row i to its tenth neighbour [1]_.

    References
    ----------
    .. [1] Zelnik-Manor, Perona (2004), Self-tuning spectral clustering, NeurIPS.
    """
    k = min(N_NEIGHBORS, len(X) - 1)
    graph = kneighbors_graph(X, k, mode="distance")
    scale = np.maximum(graph.max(axis=1).toarray()[:, 0], np.finfo(float).tiny)
    graph = graph.tocoo()
    ratio = graph.data / scale[graph.row] * (graph.data / scale[graph.col])
    weights = np.exp(-SHARPNESS * np.minimum(ratio, 30.0))
    one_way = coo_matrix((weights, (graph.row, graph.col)), shape=graph.shape).tocsr()
    return one_way.maximum(one_way.T)
