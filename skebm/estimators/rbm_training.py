"""How long and how fast an RBM is trained, and the run itself."""

import dataclasses
import math

import torch

from skebm._torch import make_generator
from skebm.objectives import RBMLikelihood
from skebm.trainer import History, Trainer

N_UPDATES = 30_000
"""Updates of a whole training."""

MOST_EPOCHS = 2000
"""Epochs of a small table, which needs fewer updates."""

N_LOOKS = 30
"""Looks at held-out rows in a whole training."""

PATIENCE = 15
"""Looks without a better likelihood that end it."""

MOMENTUM = 0.5
"""Decay of the running mean of the gradient."""

BIAS_RATE = 1.5
"""Least rate of the centred visible biases."""

HALVING = 64
"""Hidden bits and columns that halve the rate."""

N_POWER = 30
"""Steps of the power method."""

N_POWER_ROWS = 5000
"""Rows that it sees."""


def epochs_for(n_rows, batch_size):
    """Return the epochs that ``n_iter="auto"`` means.

    Parameters
    ----------
    n_rows, batch_size : int
        Training rows, rows per update.

    Returns
    -------
    int
        For 30,000 updates, at most 2,000.
    """
    return min(MOST_EPOCHS, max(1, N_UPDATES // math.ceil(n_rows / batch_size)))


def stable_rate(phi, generator, n_hidden=1):
    """Return the learning rate that ``learning_rate="auto"`` means.

    2.5 / (1 + sqrt(n_hidden k) / 64) / max(1, l), with k the smaller layer and l the
    largest eigenvalue of the covariance of the visible statistics: along its
    eigenvector the likelihood is most curved in the weights, and many hidden bits move
    along it together.

    Parameters
    ----------
    phi : Tensor of shape (n, n_statistics)
        Statistics of training rows; missing ones are NaN.
    generator : Generator
        Source of the rows and the start, on their device.
    n_hidden : int, default=1
        Hidden bits.

    Returns
    -------
    float
        In (0, 2.5).
    """
    if len(phi) > N_POWER_ROWS:
        order = torch.randperm(len(phi), generator=generator, device=phi.device)
        phi = phi[order[:N_POWER_ROWS]]
    z = (phi - phi.nanmean(0)).nan_to_num(0.0)
    u = torch.ones_like(z[0]).normal_(generator=generator)
    largest = 0.0
    for _ in range(N_POWER):
        u = z.T @ (z @ (u / u.norm().clamp(min=1e-30))) / len(z)
        largest = float(u.norm())
    width = math.sqrt(n_hidden * min(n_hidden, phi.shape[1]))
    return 2.5 / (1 + width / HALVING) / max(1.0, largest)


def with_fast_biases(objective, rate):
    """Return an objective whose centred visible biases move at a rate of at least 1.5.

    Their curvature is at most 1/4, however many columns and hidden bits there are. At
    the rate of the weights they would lag behind: then many hidden bits can hold a
    column at one value in all chains, and the weights run away.

    Parameters
    ----------
    objective : Objective
        An `RBMLikelihood` without a factor gets one; others are returned as they are.
    rate : float
        Learning rate of the weights.

    Returns
    -------
    Objective
        The same or a copy.
    """
    if not isinstance(objective, RBMLikelihood) or objective.bias_factor is not None:
        return objective
    return dataclasses.replace(objective, bias_factor=max(1.0, BIAS_RATE / rate))


class RBMRun:
    """One training of an RBM with an estimator's settings.

    Parameters
    ----------
    rbm : RBM
        Built, on its device.
    objective : RBMLikelihood
        What is ascended.
    params : dict
        Parameters of the estimator.
    seed : int
        Of all randomness.
    """

    def __init__(self, rbm, objective, params, seed):
        self.rbm, self.objective, self.params = rbm, objective, params
        self.generator = make_generator(seed, rbm.weight.device)

    def trainer(self, phi):
        """Return the trainer with the settings that fit the rows.

        Parameters
        ----------
        phi : Tensor of shape (n, n_statistics)
            Statistics of the training rows.

        Returns
        -------
        Trainer
            Steps along a running mean of the gradient, at a falling rate.
        """
        params, rate = self.params, self.params["learning_rate"]
        schedule = "exponential" if rate == "auto" else "constant"
        if rate == "auto":
            rate = stable_rate(phi, self.generator, self.rbm.n_hidden)
            self.objective = with_fast_biases(self.objective, rate)
        n_epochs = params["n_iter"]
        if n_epochs == "auto":
            n_epochs = epochs_for(len(phi), params["batch_size"])
        return Trainer(
            max_iter=n_epochs,
            batch_size=params["batch_size"],
            learning_rate=float(rate),
            optimizer="momentum",
            betas=(MOMENTUM, 0.0),
            schedule=schedule,
            n_warmup_steps=0,
            clip_norm=math.inf,
            early_stopping=params["early_stopping"],
            n_iter_no_change=PATIENCE,
            valid_every=max(1, n_epochs // N_LOOKS),
            checkpoint=params["checkpoint"],
        )

    def _leave_start(self):
        """Move the weights off the model of independent columns, where that helps."""

    def fit(self, x, x_valid, on_epoch):
        """Train the RBM in place.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Training rows; NaN is missing.
        x_valid : Tensor of shape (m, d) or None
            Held-out rows.
        on_epoch : callable or None
            See `Trainer.run`.

        Returns
        -------
        History
            Of the run.
        """
        self.rbm.match(x)
        layer = self.rbm.layer
        with torch.no_grad():
            phi = layer.statistics(x)
            missing = layer.over_statistics(x.isnan())
            trainer = self.trainer(phi.masked_fill(missing, torch.nan))
        if trainer.max_iter == 0:
            state = self.objective.init(self.rbm, x, generator=self.generator)
            return History({}, 0, False, state)
        self._leave_start()
        return trainer.run(
            self.rbm,
            self.objective,
            x,
            x_valid=x_valid,
            generator=self.generator,
            on_epoch=on_epoch,
        )
