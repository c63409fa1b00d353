"""Whether a trained RBM is better than no training at all."""

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning


def independent_score(rbm, x):
    """Return the mean log-likelihood of rows under independent columns.

    Parameters
    ----------
    rbm : RBM
        Fitted: with the fields that its columns had before training.
    x : Tensor of shape (n, d)
        Values of the units; NaN is missing.

    Returns
    -------
    float
        In nats.
    """
    layer, missing = rbm.layer, x.isnan()
    v = x.nan_to_num(0.0).to(rbm.start)
    with torch.no_grad():
        phi = layer.statistics(v) * ~layer.over_statistics(missing)
        rest = layer.self_energies(v) + layer.log_normalizers(rbm.start[None])
        return float((phi @ rbm.start - (rest * ~missing).sum(1)).mean())


def warn_if_worse(rbm, x, score, learning_rate):
    """Warn if independent columns are clearly more likely than the trained machine.

    Parameters
    ----------
    rbm : RBM
        Fitted.
    x : Tensor of shape (n, d)
        Training rows, in the values of the units.
    score : float
        Their mean log-likelihood under the machine, in nats.
    learning_rate : float or str
        What the message tells to lower.
    """
    usual = independent_score(rbm, x)
    slack = max(1.0, 0.1 * abs(usual))
    if rbm.layer.states() is None:
        slack += 3.0 * x.shape[1]
    if score > usual - slack:
        return
    warnings.warn(
        f"The training rows have {score:.6g} nats, less than with independent columns "
        f"({usual:.6g}): training diverged, or its chains do not mix. Lower "
        f'learning_rate (got {learning_rate!r}), or use objective="tempered".',
        ConvergenceWarning,
        stacklevel=6,
    )
