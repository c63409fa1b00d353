"""How long and how fast machines of bits are trained, and the run itself."""

import math

import numpy as np
import torch

from skebm._torch import make_generator
from skebm.estimators.rbm_training import MOMENTUM, N_LOOKS, N_POWER, PATIENCE
from skebm.trainer import Trainer

N_POWER_ROWS = 5000
"""Rows that the power method sees."""

EXACT_UPDATES, HIDDEN_UPDATES, CHAIN_UPDATES = 500, 2000, 4000
"""Updates of a whole training of a Boltzmann machine: by sums over all states without
and with hidden bits, and by chains."""

EXACT_SPEED = 8.0
"""Without noise in the gradient, momentum carries rates beyond the stable one."""


def pair_rate(x, generator):
    """Return the learning rate that is stable for couplings of pairs of bits.

    One over the largest eigenvalue of the covariance of the products z_i z_j, i < j, of
    centred columns, at most 1: what the likelihood is curved in the couplings.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Training rows.
    generator : Generator
        Source of the rows and the start, on their device.

    Returns
    -------
    float
        In (0, 1].
    """
    if len(x) > N_POWER_ROWS:
        order = torch.randperm(len(x), generator=generator, device=x.device)
        x = x[order[:N_POWER_ROWS]]
    z = x - x.mean(0)
    direction = torch.randn(
        z.shape[1], z.shape[1], generator=generator, device=z.device
    )
    largest = 0.0
    for _ in range(N_POWER):
        direction = direction.triu(1) / direction.triu(1).norm().clamp(min=1e-30)
        along = ((z @ direction) * z).sum(1)
        direction = z.T @ ((along - along.mean())[:, None] * z) / len(z)
        largest = float(direction.triu(1).norm())
    return 1 / max(1.0, largest)


def layer_sizes(given):
    """Return the hidden layers that ``hidden_layer_sizes`` means.

    Parameters
    ----------
    given : int or sequence of int
        Bits of the layers, from below.

    Returns
    -------
    tuple of int
        One number per layer.

    Raises
    ------
    ValueError
        If one is not an integer >= 1, or there is none.
    """
    sizes = np.atleast_1d(given)
    if sizes.ndim != 1 or not np.issubdtype(sizes.dtype, np.integer) or min(sizes) < 1:
        raise ValueError(
            f"Got hidden_layer_sizes={given!r}, but expected one integer >= 1 for "
            "every hidden layer, such as (128, 64)."
        )
    return tuple(sizes.tolist())


def trained(energy, objective, x, x_valid, params, *, rate, n_epochs, on_epoch, seed):
    """Train an energy in place, as an RBM is trained.

    Parameters
    ----------
    energy : Energy
        Built and matched to the rows.
    objective : Objective
        What is minimised.
    x : Tensor of shape (n, d)
        Training rows.
    x_valid : Tensor of shape (m, d) or None
        Held-out rows.
    params : dict
        Parameters of the estimator.
    rate : float
        Learning rate at the start; it falls to a hundredth.
    n_epochs : int
        Epochs.
    on_epoch : callable or None
        See `Trainer.run`.
    seed : int
        Of all randomness.

    Returns
    -------
    History
        Of the run.
    """
    trainer = Trainer(
        max_iter=n_epochs,
        batch_size=params["batch_size"],
        learning_rate=float(rate),
        optimizer="momentum",
        betas=(MOMENTUM, 0.0),
        schedule="exponential",
        n_warmup_steps=0,
        clip_norm=math.inf,
        early_stopping=params["early_stopping"],
        n_iter_no_change=PATIENCE,
        valid_every=max(1, n_epochs // N_LOOKS),
        checkpoint=params.get("checkpoint"),
    )
    generator = make_generator(seed, x.device)
    return trainer.run(
        energy, objective, x, x_valid=x_valid, generator=generator, on_epoch=on_epoch
    )
