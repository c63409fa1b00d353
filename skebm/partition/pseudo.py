"""sum_i log p(v_i | v without i): the pseudo-log-likelihood of a machine of bits."""

import torch
from torch import Tensor

from skebm.energies import RBM, Boltzmann


def pseudo_log_likelihood(rbm: RBM, v: Tensor) -> Tensor:
    """Return sum_i log p(v_i | v without i), with all flips and no log Z [1]_.

    Parameters
    ----------
    rbm : RBM
        Built, with `BernoulliUnits`.
    v : Tensor of shape (n, d)
        Rows in [0, 1]; v_i between counts as v_i of a one and 1 - v_i of a zero.

    Returns
    -------
    Tensor of shape (n,)
        In nats.

    References
    ----------
    .. [1] Besag (1975), Statistical analysis of non-lattice data, The Statistician
       24(3).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import RBM, Boltzmann
    >>> from skebm.partition import pseudo_log_likelihood
    >>> with torch.no_grad():
    ...     found = pseudo_log_likelihood(RBM(3).build(2), torch.zeros(1, 2))
    >>> round(found.item(), 1)  # about 2 log(1 / 2)
    -1.4
    """
    fields = rbm.hidden_fields(v)
    softplus = torch.nn.functional.softplus
    total = torch.zeros_like(v[:, 0])
    for i in range(v.shape[1]):
        on, weight = v[:, i], rbm.weight[:, i]
        without = fields - on[:, None] * weight
        rise = (softplus(without + weight) - softplus(without)).sum(1)
        rise = rise + rbm.visible_bias[i]
        total = total + on * rise - softplus(rise)
    return total


def pseudo_log_likelihood_of_bits(machine: Boltzmann, v: Tensor) -> Tensor:
    """Return sum_i log p(v_i | v without i) of a machine without hidden bits.

    Parameters
    ----------
    machine : Boltzmann
        Built, with ``n_hidden=0``.
    v : Tensor of shape (n, d)
        Rows in [0, 1]; v_i between counts as v_i of a one and 1 - v_i of a zero.

    Returns
    -------
    Tensor of shape (n,)
        In nats.
    """
    rise = torch.addmm(machine.bias, v, machine.matrix())
    return (v * rise - torch.nn.functional.softplus(rise)).sum(1)
