"""log Z(u) of a conditional RBM: a sum over its smaller layer, or annealing."""

import math

import torch
from torch import Generator, Tensor

from skebm._torch import in_chunks, make_generator
from skebm.energies import ContextRBM
from skebm.samplers.conditional_rbm import anneal_given, listed_states

N_CHAINS = 64
"""Annealed chains per context."""


def log_partition_given(energy: ContextRBM, u: Tensor, *, seed: int = 0) -> Tensor:
    """Return log Z(u), where p(v | u) = exp(-E(v; u)) / Z(u).

    Exact where the visible or the hidden layer has up to 4,096 states. Else annealed
    importance sampling with 64 chains, each context by itself and with the same noise.

    Parameters
    ----------
    energy : ContextRBM
        Built.
    u : Tensor of shape (n, n_context)
        Contexts.
    seed : int, default=0
        Of the noise.

    Returns
    -------
    Tensor of shape (n,)
        In nats.

    References
    ----------
    .. [1] Salakhutdinov, Murray (2008), On the quantitative analysis of deep belief
       networks, ICML.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import ContextRBM
    >>> from skebm.partition import log_partition_given
    >>> energy = ContextRBM(n_context=1, n_hidden=0).build(3)
    >>> round(log_partition_given(energy, torch.zeros(1, 1)).item(), 4)  # 2 log 2
    1.3863
    """
    states = listed_states(energy)
    if states is not None:
        size = states.chunk_rows(energy)
        return in_chunks(
            lambda piece: (states.log_weights(energy, piece).logsumexp(1),), size, u
        )[0]
    rows = []
    for row in torch.split(u, 1):
        g = make_generator(seed, u.device)
        rows.append(annealed_given(energy, row, N_CHAINS, generator=g))
    return torch.cat(rows)


def annealed_given(
    energy: ContextRBM, u: Tensor, n_chains: int, *, generator: Generator
) -> Tensor:
    """Return log Z(u) from the same number of annealed chains in every context.

    Parameters
    ----------
    energy : ContextRBM
        Built.
    u : Tensor of shape (n, n_context)
        Contexts.
    n_chains : int
        Chains per context, >= 1.
    generator : Generator
        Source of randomness, on the device of u.

    Returns
    -------
    Tensor of shape (n,)
        In nats, low in expectation.
    """
    _, log_w = anneal_given(
        energy, u.repeat_interleave(n_chains, 0), generator=generator
    )
    return log_w.view(len(u), n_chains).logsumexp(1) - math.log(n_chains)
