"""How a chain of labels is trained: L-BFGS on all sequences."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from skebm._torch import make_generator
from skebm.estimators.sequences import padded
from skebm.objectives.chain_likelihood import ChainLikelihood, half_squares

BATCH = 256
"""Most sequences whose sums are in memory at once."""

FLAT = 64 * np.finfo(np.float64).eps
"""Relative fall of the loss that counts as none."""


class Descent(NamedTuple):
    """What came of a training.

    Attributes
    ----------
    losses : list of float
        Penalised loss per label after each iteration, in nats.
    interrupted : bool
        Whether Ctrl-C ended it.
    """

    losses: list
    interrupted: bool


def train_chain(chain, rows, codes, layout, *, alpha, max_iter, tol):
    """Train a chain in place, to the minimum or the last iteration.

    Parameters
    ----------
    chain : Chain
        Built, in double precision, on the device of the rows.
    rows : Tensor of shape (n_rows, d)
        All rows.
    codes : Tensor of shape (n_rows,)
        Codes of their labels.
    layout : Layout
        How the sequences lie.
    alpha : float
        Factor on half the squared weights in the loss summed over sequences.
    max_iter : int
        Most iterations.
    tol : float
        Largest slope of the loss per label at which the descent ends.

    Returns
    -------
    Descent
        Losses of the whole iterations.
    """
    batches = [padded(rows, codes, *g, layout) for g in layout.groups(BATCH)]
    target = _Target(chain, batches, alpha, len(rows))
    interrupted = False
    try:
        result = minimize(
            target,
            target.kept,
            jac=True,
            method="L-BFGS-B",
            callback=target.keep,
            options={"maxiter": max_iter, "gtol": tol, "ftol": FLAT, "maxls": 50},
        )
        if result.nit >= max_iter and not result.success:
            _warn_of_an_early_end(max_iter)
    except KeyboardInterrupt:
        interrupted = True
    target.put(target.kept)
    return Descent(target.losses, interrupted)


class _Target:
    """The loss as a function of all weights in one vector, and its last iterate."""

    def __init__(self, chain, batches, alpha, n_labels):
        self.data = chain, batches, alpha, n_labels
        self.weights = list(chain.parameters())
        self.kept = parameters_to_vector(self.weights).detach().cpu().numpy().copy()
        self.losses = []

    def put(self, vector):
        """Give the chain its weights."""
        vector_to_parameters(torch.as_tensor(vector).to(self.weights[0]), self.weights)

    def __call__(self, vector):
        """Return the loss and its gradient."""
        self.put(vector)
        return loss_and_gradient(*self.data)

    def keep(self, intermediate_result):
        """Remember a whole iteration."""
        self.kept = intermediate_result.x.copy()
        self.losses.append(float(intermediate_result.fun))


def loss_and_gradient(chain, batches, alpha, n_labels):
    """Return the penalised loss per label, and its gradient.

    Parameters
    ----------
    chain : Chain
        In training.
    batches : list of Tensor of shape (m, T, d + 1)
        Sequences with the codes of their labels last.
    alpha : float
        Factor on half the squared weights in the loss summed over sequences.
    n_labels : int
        Labels in all batches.

    Returns
    -------
    loss : float
        In nats.
    gradient : ndarray of shape (n_weights,)
        In the order of the chain's parameters.
    """
    objective, state, generator = (
        ChainLikelihood(),
        torch.nn.Module(),
        make_generator(0),
    )
    chain.zero_grad()
    penalty = alpha / n_labels * half_squares(chain)
    penalty.backward()
    loss = float(penalty.detach())
    for batch in batches:
        share = len(batch) / n_labels
        value = share * objective(chain, batch, state, generator=generator).value
        value.backward()
        loss += float(value.detach())
    gradient = parameters_to_vector([w.grad for w in chain.parameters()])
    return loss, gradient.cpu().numpy()


def _warn_of_an_early_end(max_iter):
    """Warn that the last iteration came before the minimum."""
    warnings.warn(
        f"Training stopped after max_iter={max_iter} iterations, before the loss was "
        "flat to tol. Raise max_iter, tol or alpha.",
        ConvergenceWarning,
        stacklevel=6,
    )
