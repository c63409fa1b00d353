"""RBMs of tables: few hidden bits, the exact gradient, steps of one size."""

import math
from abc import abstractmethod

import numpy as np
import torch

from skebm._check import StrOptions
from skebm.energies import GaussianUnits
from skebm.estimators.choices import RBM_OBJECTIVES, resolve
from skebm.estimators.rbm_density import RBMDensity
from skebm.estimators.rbm_stream import AVERAGING, Stream
from skebm.estimators.rbm_training import MOST_EPOCHS, N_LOOKS, PATIENCE, RBMRun
from skebm.objectives import ExactLikelihood, RBMLikelihood
from skebm.trainer import Trainer
from skebm.training.descent import AdamW

TABLE_OBJECTIVES = {"exact": ExactLikelihood(), **RBM_OBJECTIVES}

MOST_EXACT = 10
"""Hidden bits up to which listing their states costs no more than chains."""

RATE = {True: 0.1, False: 0.01}
"""Learning rate at the start: of the exact gradient, and of one with noise."""

N_UPDATES = {True: 5000, False: 20_000}
"""Updates of a whole training, likewise."""

BETAS = 0.9, 0.999
"""Decay of the moments of AdamW: with a shorter memory the loss jumps up again."""

N_WARMUP = 500
"""Updates over which the rate rises."""

START_SHARE = 0.5
"""Share of its variance that a real column starts with: with all of it, weights of zero
are a saddle, and in one column a flat one."""


class TableRBM(RBMDensity):
    """An RBM of columns of a table.

    The statistics of such columns differ in size, and those of real columns grow as
    their variance is learned to be small, so steps are scaled by AdamW.
    """

    verbose = 0
    _parameter_constraints: dict = {
        **RBMDensity._parameter_constraints,
        "objective": [
            StrOptions({"auto", *TABLE_OBJECTIVES}),
            RBMLikelihood,
            ExactLikelihood,
        ],
    }
    del _parameter_constraints["verbose"]

    @abstractmethod
    def _log_scales(self):
        """Return the log of every column's scale, shape (n_features,)."""

    def _log_volume(self):
        """Return the log of the volume of a unit cube of scaled rows."""
        return float(self._log_scales().sum())

    def _measure(self, rows):
        """Return E of encoded rows; log Z counts the scales of missing columns too."""
        # No matrix product: its last bits depend on a row's neighbours.
        return super()._measure(rows) - (np.isnan(rows) * self._log_scales()).sum(1)

    def _chosen_objective(self):
        """Return the objective; "auto" is exact up to 10 hidden bits, else PCD."""
        choice = self.objective
        if choice == "auto":
            choice = "exact" if self.n_components <= MOST_EXACT else "pcd"
        return resolve(choice, TABLE_OBJECTIVES)

    def _new_run(self, rbm):
        """Return a training of a built RBM."""
        params = self.get_params(False)
        return TableRun(rbm, self._chosen_objective(), params, self._fit_seed)

    def _new_stream(self, rbm, x):
        """Return a training that goes on as batches come, x the first."""
        objective = self._chosen_objective()
        return TableStream(rbm, objective, self.learning_rate, x, self._fit_seed)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64"]
        return tags


def is_exact(objective):
    """Tell whether an objective's gradient is free of the noise of chains.

    Parameters
    ----------
    objective : Objective
        Of an RBM.

    Returns
    -------
    bool
        True for `ExactLikelihood`.
    """
    return isinstance(objective, ExactLikelihood)


class TableRun(RBMRun):
    """One training of an RBM of a table's columns.

    Parameters
    ----------
    rbm, objective, params, seed : object
        Of `RBMRun`.
    """

    def trainer(self, phi):
        """Return the trainer with the settings that fit the rows.

        Parameters
        ----------
        phi : Tensor of shape (n, n_statistics)
            Statistics of the training rows.

        Returns
        -------
        Trainer
            Steps of AdamW at a falling rate.
        """
        self.constant = constant_statistics(phi)
        params, exact = self.params, is_exact(self.objective)
        rate, n_epochs = params["learning_rate"], params["n_iter"]
        if n_epochs == "auto":
            per_epoch = math.ceil(len(phi) / params["batch_size"])
            n_epochs = min(MOST_EPOCHS, max(1, N_UPDATES[exact] // per_epoch))
        return Trainer(
            max_iter=n_epochs,
            batch_size=params["batch_size"],
            learning_rate=RATE[exact] if rate == "auto" else float(rate),
            betas=BETAS,
            schedule="exponential",
            n_warmup_steps=N_WARMUP,
            clip_norm=math.inf,
            early_stopping=params["early_stopping"],
            n_iter_no_change=PATIENCE,
            valid_every=max(1, n_epochs // N_LOOKS),
            checkpoint=params["checkpoint"],
        )

    def _leave_start(self):
        """Leave a part of the variance of real columns to the hidden bits."""
        leave_start(self.rbm, self.constant)


def constant_statistics(phi):
    """Tell which statistics have one value.

    Parameters
    ----------
    phi : Tensor of shape (n, n_statistics)
        Statistics of training rows; NaN where missing.

    Returns
    -------
    Tensor of shape (n_statistics,), bool
        True where nothing varies.
    """
    missing = phi.isnan()
    top = phi.masked_fill(missing, -torch.inf).amax(0)
    return top <= phi.masked_fill(missing, torch.inf).amin(0)


def leave_start(rbm, constant):
    """Lower the variances of real columns; cut off what does not vary.

    Parameters
    ----------
    rbm : RBM
        Matched to rows.
    constant : Tensor of shape (n_statistics,), bool
        Statistics with one value: a step of AdamW would be far for them.
    """
    with torch.no_grad():
        rbm.weight.masked_fill_(constant, 0.0)
        for layer in rbm.modules():
            if isinstance(layer, GaussianUnits):
                layer.log_variance.add_(math.log(START_SHARE))


class TableStream(Stream):
    """A training of an RBM of a table's columns that goes on as batches come.

    Parameters
    ----------
    rbm, objective, learning_rate, x, seed : object
        Of `Stream`.
    """

    def __init__(self, rbm, objective, learning_rate, x, seed):
        super().__init__(rbm, objective, learning_rate, x, seed)
        if not rbm.start.any():
            with torch.no_grad():
                phi = self.rbm.layer.statistics(x)
            leave_start(self.rbm, constant_statistics(phi))

    def _usual_rate(self, x, generator):
        """Return half the rate at which a whole training starts, or less."""
        return RATE[is_exact(self.objective)] / 2

    def _descent(self, weights):
        """Return the optimizer."""
        return AdamW(weights, [], betas=BETAS, **AVERAGING)
