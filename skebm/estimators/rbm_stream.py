"""A training of an RBM that goes on as batches come."""

import copy

import torch

from skebm._torch import make_generator
from skebm.estimators.rbm_training import MOMENTUM, stable_rate, with_fast_biases
from skebm.exceptions import DivergenceError
from skebm.training.descent import Momentum, copied

AVERAGING = {"weight_decay": 0.0, "clip_norm": float("inf"), "ema": 0.999}
"""The gradient is not clipped; ``ema`` is the decay of the average of the weights."""

LARGEST_GROWTH = 1e4
"""Energies larger than those of the first batch by this factor have exploded."""


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

    Attributes
    ----------
    record : dict of str to float
        The loss of the last batch and what comes with it.
    """

    def __init__(self, rbm, objective, learning_rate, x, seed):
        self.rbm = copy.deepcopy(rbm).float().requires_grad_(True)
        self.objective, self.seed, self.t = objective, seed, 0
        self.record: dict[str, float] = {}
        generator = make_generator(seed, x.device)
        if not self.rbm.start.any():
            self.rbm.match(x)
        self.state = objective.init(self.rbm, x, generator=generator)
        self.state.n_rows.zero_()
        self.first_size = self._size(x)
        self.rate = learning_rate
        if learning_rate == "auto":
            self.rate = self._usual_rate(x, generator)
            self.objective = with_fast_biases(objective, self.rate)
        self.descent = self._descent(list(self.rbm.parameters()))

    def update(self, x):
        """Take one step on a batch.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows; NaN is missing.

        Raises
        ------
        DivergenceError
            If the energies explode at half the rate too; the RBM is then that of the
            batch before.
        """
        before = copied([part.state_dict() for part in self._parts()])
        if self._step(x):
            return
        self._restore(before)
        self.rate /= 2
        if self._step(x):
            return
        self._restore(before)
        raise DivergenceError(
            f"Batch {self.t + 1} made the energies explode, at learning_rate="
            f"{self.rate:g} (halved) too. The machine is that of the batch "
            "before. Lower learning_rate."
        )

    def _step(self, x):
        """Take a step; tell whether the energies of the batch kept a size."""
        self.state.n_rows += len(x)
        generator = make_generator(self.seed + self.t, x.device)
        loss = self.objective(self.rbm, x, self.state, generator=generator)
        self.record = {k: float(v) for k, v in loss.metrics.items()}
        self.record["loss"] = float(loss.value)
        self.descent.step(loss.value, self.t, float(self.rate))
        if not self._size(x) < LARGEST_GROWTH * (1 + self.first_size):
            return False
        self.t += 1
        return True

    def _size(self, x):
        """Return how large the energies of a batch are, NaN if one is not finite."""
        with torch.no_grad():
            return float(self.rbm(x.nan_to_num(0.0)).abs().mean())

    def _parts(self):
        """Return all that a step changes."""
        return self.rbm, self.state, self.descent

    def _restore(self, before):
        """Go back to the states of the parts."""
        for part, state in zip(self._parts(), before, strict=True):
            part.load_state_dict(state)

    def _usual_rate(self, x, generator):
        """Return what is stable on the first batch."""
        layer = self.rbm.layer
        missing = layer.over_statistics(x.isnan())
        with torch.no_grad():
            phi = layer.statistics(x).masked_fill(missing, torch.nan)
        return stable_rate(phi, generator, self.rbm.n_hidden)

    def _descent(self, weights):
        """Return the optimizer."""
        return Momentum(weights, [], momentum=MOMENTUM, **AVERAGING)

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
