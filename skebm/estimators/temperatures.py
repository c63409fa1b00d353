"""Temperatures at which the scores of classes are probabilities."""

import math

import torch
from scipy.optimize import brentq

HOTTEST = 20.0
"""Largest temperature; the smallest is its inverse."""


def consistent_temperature(scores, codes, weights):
    """Return the T in [1/20, 20] at which confidence is accuracy, on average.

    The mean of max_y p(y | x) rises as T falls; it meets (r + 1) / (n + 2) with r right
    of n rows, so that few rows without an error do not make the model certain.

    Parameters
    ----------
    scores : Tensor of shape (n, n_classes)
        s: p(y | x) = softmax_y(s_y / T).
    codes : ndarray of shape (n,)
        Places of the labels.
    weights : ndarray of shape (n,)
        Weights >= 0.

    Returns
    -------
    float
        T.

    References
    ----------
    .. [1] Clarte, Loureiro, Krzakala, Zdeborova (2023), Expectation consistency for
       calibration of neural networks, UAI.
    """
    right = (scores.argmax(1).numpy() == codes) * weights
    accuracy = (right.sum() + 1) / (weights.sum() + 2)
    share = torch.from_numpy(weights / weights.sum())

    def _excess(log_t):
        confidence = (scores / math.exp(log_t)).softmax(1).amax(1)
        return float(share @ confidence) - accuracy

    bound = math.log(HOTTEST)
    if _excess(-bound) <= 0:
        return 1 / HOTTEST
    if _excess(bound) >= 0:
        return HOTTEST
    return math.exp(brentq(_excess, -bound, bound))
