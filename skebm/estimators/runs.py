"""Runs of the trainer with an estimator's settings, and what comes of them."""

import math
import os
from typing import NamedTuple

import numpy as np
import torch

from skebm._torch import make_generator
from skebm.energies import Energy, Gaussians
from skebm.trainer import Trainer

EPOCH_ROWS = 8192
"""Smaller tables are repeated to this many rows per epoch."""

N_BASE_ROWS = 20_000
"""Draws of the base behind log Z where models are compared."""

SETTINGS = "max_iter", "batch_size", "learning_rate", "early_stopping", "checkpoint"


class Fit(NamedTuple):
    """A trained energy of scaled rows and what is known about it.

    Attributes
    ----------
    energy : Energy
        E(z), float32, in eval mode.
    base : Gaussians
        A normalised density near the rows.
    held_out : ndarray of shape (n_held_out,)
        Places of the rows that ``log_density`` was read on.
    log_density : ndarray of shape (n_held_out,) or None
        Their log-density under models that did not see them; None where ``energy``
        itself did not see them.
    history : dict of str to list of float
        One number per epoch of the run that was kept.
    n_iter : int
        Epochs of that run.
    """

    energy: Energy
    base: Gaussians
    held_out: np.ndarray
    log_density: np.ndarray | None
    history: dict
    n_iter: int


class Runs:
    """Runs of the trainer with the estimator's settings.

    Parameters
    ----------
    params : dict
        Parameters of the estimator; its fields of `Trainer` replace the defaults of a
        run unless they are "auto".
    device : device
        Where to train.
    seed : int
        Seed of the first run; every run has its own.
    """

    def __init__(self, params, device, seed):
        self.settings = {k: params[k] for k in SETTINGS if params[k] != "auto"}
        self.device, self.seed = device, seed
        self.n_runs = 0
        self.interrupted = False

    def tensor(self, rows):
        """Return rows as float32 on the device.

        Parameters
        ----------
        rows : ndarray of shape (n, d)
            Scaled rows.

        Returns
        -------
        Tensor of shape (n, d)
            The same rows.
        """
        return torch.from_numpy(rows).to(self.device, torch.float32)

    def run(self, energy, objective, x, x_valid=None, *, forced=None, **defaults):
        """Build an energy and train it.

        Parameters
        ----------
        energy : Energy
            Unbuilt; it is trained in place.
        objective : Objective
            What is minimised.
        x, x_valid : Tensor of shape (n, d), Tensor of shape (m, d) or None
            Training and held-out rows.
        forced : dict or None, default=None
            Fields of `Trainer` that replace the defaults and the user's settings.
        **defaults : dict
            Fields of `Trainer`, or ``n_steps`` for ``max_iter``, that the user's
            settings replace.

        Returns
        -------
        History
            Of the run.
        """
        n = len(x)
        x = x.repeat(math.ceil(EPOCH_ROWS / n), 1)[: max(n, EPOCH_ROWS)]
        settings = defaults | self.settings
        n_steps = settings.pop("n_steps", None)
        batch_size = settings.get("batch_size", Trainer.batch_size)
        if n_steps is not None:
            n_epochs = max(2, round(n_steps / math.ceil(len(x) / batch_size)))
            settings = {"max_iter": n_epochs} | settings
        settings = settings | (forced or {})
        path = settings.get("checkpoint")
        if path is not None:
            settings["checkpoint"] = f"{os.fspath(path)}.{self.n_runs}"
        generator = self.generator()
        # Weights are drawn on the CPU, so that they are the same on every device.
        energy.build(x.shape[1], generator=make_generator(generator.initial_seed()))
        energy.to(self.device)
        history = Trainer(**settings).run(
            energy, objective, x, x_valid=x_valid, generator=generator
        )
        self.n_runs += 1
        self.interrupted |= history.interrupted
        return history

    def generator(self):
        """Return the generator of the current run.

        Returns
        -------
        Generator
            On the device.
        """
        return make_generator(self.seed + self.n_runs, self.device)

    def log_density(self, energy, x):
        """Return the normalised log-density of rows.

        Parameters
        ----------
        energy : Gaussians or Tilted
            Trained.
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        ndarray of shape (n,)
            In nats.
        """
        if isinstance(energy, Gaussians):
            return -energy(x).double().cpu().numpy()
        with torch.no_grad():
            noise = energy.sample_base(N_BASE_ROWS, generator=self.generator())
            log_z = (-energy.correction(noise)).logsumexp(0) - math.log(N_BASE_ROWS)
            return (-energy(x) - log_z).double().cpu().numpy()
