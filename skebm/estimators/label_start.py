"""Where learning of labels starts: a linear discriminant beside the patterns."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.covariance import ledoit_wolf
from sklearn.model_selection import StratifiedKFold

N_FOLDS = 5
"""Fits without a part of the rows, on which the share of the discriminant is read."""

MOST_COLUMNS = 100
"""Tables of more columns start without a discriminant: in 784 pixels it misleads a
network that sees pictures, by half a percent of its accuracy."""

FLOOR = 1e-4
"""Least variance of scaled columns within a class."""

MOST_SHARE = 1.0
"""Largest factor: log-odds are never taken for more than they say."""

TRUST, MOST_TRUST = 0.4, 0.3
"""Share of the likeliest a at which training starts, and the largest start."""


class LabelStart(NamedTuple):
    """The fixed part of s_y(x), and the a at which training starts.

    Attributes
    ----------
    slope : ndarray of shape (n_classes, d)
        v.
    intercept : ndarray of shape (n_classes,)
        u.
    trust : float
        a.
    """

    slope: np.ndarray
    intercept: np.ndarray
    trust: float


def label_start(rows, log_p, seed):
    """Return a discriminant v_y'x + u_y and a trust a for labelled rows.

    Training starts at less than the a at which the patterns alone make the labels
    likeliest: from there the network learns what they do not tell; from the whole of
    it, it would learn their rare errors by heart. The share of the discriminant d
    is what then makes them likeliest, judged where d did not see the rows.

    Parameters
    ----------
    rows : LabelledRows
        Rows with labels and positive weights.
    log_p : ndarray of shape (n, n_classes)
        log p(y | x) of their patterns, each row's own left out.
    seed : int
        Of the folds.

    Returns
    -------
    LabelStart
        Without a discriminant where a class has a single row, or the table more than
        100 columns.
    """
    n_classes, d = log_p.shape[1], rows.z.shape[1]
    trust = min(MOST_TRUST, TRUST * likeliest_factor(log_p, 0.0, rows))
    fewest = np.bincount(rows.codes, minlength=n_classes).min()
    if fewest < 2 or d > MOST_COLUMNS:
        return LabelStart(np.zeros((n_classes, d)), np.zeros(n_classes), trust)
    unseen = np.empty_like(log_p)
    folds = StratifiedKFold(min(N_FOLDS, fewest), shuffle=True, random_state=seed)
    for train, test in folds.split(rows.z, rows.codes):
        slope, intercept = discriminant(rows.take(train), n_classes)
        unseen[test] = rows.z[test] @ slope.T + intercept
    share = likeliest_factor(unseen, trust * log_p, rows)
    slope, intercept = discriminant(rows, n_classes)
    return LabelStart(share * slope, share * intercept, trust)


def discriminant(rows, n_classes):
    """Return the log-odds of Gaussian classes with one covariance [1]_.

    d_y(x) = m_y' S^-1 x - m_y' S^-1 m_y / 2 + log p(y), less their mean over y: m are
    the means, S the covariance within the classes, shrunk [2]_. scikit-learn's
    `LinearDiscriminantAnalysis` takes no weights of rows.

    Parameters
    ----------
    rows : LabelledRows
        Every class has a row.
    n_classes : int
        Number of classes.

    Returns
    -------
    slope : ndarray of shape (n_classes, d)
        Factors of x.
    intercept : ndarray of shape (n_classes,)
        Value at zero.

    References
    ----------
    .. [1] Fisher (1936), The use of multiple measurements in taxonomic problems, Annals
       of Eugenics 7(2).
    .. [2] Ledoit, Wolf (2004), A well-conditioned estimator for large-dimensional
       covariance matrices, Journal of Multivariate Analysis 88(2).
    """
    share = rows.weights / rows.weights.sum()
    members = share[:, None] * np.eye(n_classes)[rows.codes]
    prior = members.sum(0)
    means = members.T @ rows.z / prior[:, None]
    residuals = np.sqrt(len(share) * share)[:, None] * (rows.z - means[rows.codes])
    covariance, _ = ledoit_wolf(residuals, assume_centered=True)
    covariance = covariance + FLOOR * np.eye(len(covariance))
    slope = np.linalg.solve(covariance, means.T).T
    intercept = np.log(prior) - (means * slope).sum(1) / 2
    return slope - slope.mean(0), intercept - intercept.mean()


def likeliest_factor(scores, offset, rows):
    """Return the s in [0, 1] at which labels are likeliest.

    Parameters
    ----------
    scores, offset : ndarray of shape (n, n_classes)
        Log-odds: p(y | x) = softmax_y(s scores_y + offset_y).
    rows : LabelledRows
        Labels and weights.

    Returns
    -------
    float
        s.
    """

    def _loss(factor):
        log_p = log_softmax(factor * scores + offset, axis=1)
        return -rows.weights @ log_p[np.arange(len(log_p)), rows.codes]

    return minimize_scalar(_loss, bounds=(0.0, MOST_SHARE), method="bounded").x
