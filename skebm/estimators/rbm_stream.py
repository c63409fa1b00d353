"""A training of an RBM that goes on as batches come."""

import copy

import torch

from skebm._torch import make_generator
from skebm.estimators.rbm_training import MOMENTUM, stable_rate
from skebm.training.descent import Momentum

AVERAGE = 0.999
"""Decay of the average of the weights per batch."""


class Stream:
    """An RBM in training, one step per batch.

    Parameters
    ----------
    rbm : RBM
        Built; a copy is trained.
    objective : RBMLikelihood
        What is ascended.
    learning_rate : float or "auto"
        Of every step; "auto" takes what is stable on the first batch.
    x : Tensor of shape (n, d)
        First batch.
    seed : int
        Of all randomness.
    """

    def __init__(self, rbm, objective, learning_rate, x, seed):
        self.rbm = copy.deepcopy(rbm).float().requires_grad_(True)
        self.objective, self.seed, self.t = objective, seed, 0
        generator = make_generator(seed, x.device)
        if not self.rbm.start.any():
            self.rbm.match(x)
        self.state = objective.init(self.rbm, x, generator=generator)
        self.state.n_rows.zero_()
        self.rate = learning_rate
        if learning_rate == "auto":
            layer = self.rbm.layer
            missing = layer.over_statistics(x.isnan())
            with torch.no_grad():
                phi = layer.statistics(x).masked_fill(missing, torch.nan)
            self.rate = stable_rate(phi, generator)
        self.descent = Momentum(
            list(self.rbm.parameters()),
            [],
            momentum=MOMENTUM,
            weight_decay=0.0,
            clip_norm=float("inf"),
            ema=AVERAGE,
        )

    def update(self, x):
        """Take one step on a batch.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows; NaN is missing.
        """
        self.state.n_rows += len(x)
        generator = make_generator(self.seed + self.t, x.device)
        loss = self.objective(self.rbm, x, self.state, generator=generator)
        self.descent.step(loss.value, self.t, float(self.rate))
        self.t += 1

    def model(self):
        """Return a copy of the RBM with the averaged weights.

        Returns
        -------
        RBM
            In single precision.
        """
        rbm = copy.deepcopy(self.rbm)
        with torch.no_grad():
            for weight, mean in zip(
                rbm.parameters(), self.descent.average, strict=True
            ):
                weight.copy_(mean)
        return rbm
