"""Whether a trained machine is better than no training at all."""

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning


def independent_score(layer, start, x):
    """Return the mean log-likelihood of rows under independent columns.

    Parameters
    ----------
    layer : Units
        Of the columns.
    start : Tensor of shape (n_statistics,)
        Fields that the columns had before training.
    x : Tensor of shape (n, d)
        Values of the units; NaN is missing.

    Returns
    -------
    float
        In nats.
    """
    missing, v = x.isnan(), x.nan_to_num(0.0).to(start)
    with torch.no_grad():
        phi = layer.statistics(v) * ~layer.over_statistics(missing)
        rest = layer.self_energies(v) + layer.log_normalizers(start[None])
        return float((phi @ start - (rest * ~missing).sum(1)).mean())


def warn_if_worse(score, usual, *, advice, slack=0.0):
    """Warn if independent columns are clearly more likely than a trained machine.

    Parameters
    ----------
    score, usual : float
        Mean log-likelihoods of the training rows, in nats: under the machine, and under
        independent columns.
    advice : str
        What to do, as a sentence without its full stop.
    slack : float, default=0.0
        Nats that the machine may lose, beside 1 and a tenth of ``usual``.
    """
    if score > usual - max(1.0, 0.1 * abs(usual)) - slack:
        return
    warnings.warn(
        f"The training rows have {score:.6g} nats, less than with independent columns "
        f"({usual:.6g}): training diverged, or its chains do not mix. {advice}.",
        ConvergenceWarning,
        stacklevel=6,
    )
