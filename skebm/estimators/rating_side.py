"""One machine over ratings, with users or with items as its rows."""

import math

import numpy as np
import torch

from skebm._torch import in_chunks, make_generator, to_numpy
from skebm.energies import OrdinalRBM, RatedRows, Ratings
from skebm.objectives import RatingLikelihood
from skebm.trainer import Trainer

PRIOR = 5.0
"""Ratings at the overall frequencies that those of a column start from."""

LEARNING_RATE = 0.01
"""Largest rate of the steps that AdamW scales."""

LEAST_EPOCHS, MOST_EPOCHS, N_UPDATES = 20, 400, 400
"""Of a training: enough epochs for this many updates, within the bounds."""

N_WARMUP = 50
"""Updates over which the rate rises."""

CHUNK = 64
"""Pairs whose levels are computed at once, always as many."""


class RatingSide:
    """A machine whose rows rate its columns, and the ratings it was fitted to.

    Parameters
    ----------
    row, column, level : ndarray of shape (m,)
        Training ratings, codes from 0.
    shape : tuple of int
        Rows, columns, levels.
    """

    def __init__(self, row, column, level, shape):
        self.n_rows, self.n_columns, self.n_levels = shape
        order = np.lexsort([column, row])
        self.row, self.column, self.level = row[order], column[order], level[order]

    def fit(self, params, device, seed):
        """Train the machine.

        Parameters
        ----------
        params : dict
            Parameters of `RatingRBM`.
        device : str
            Where to train.
        seed : int
            Of all randomness.

        Returns
        -------
        History
            Of the run.
        """
        machine = OrdinalRBM(self.n_levels, params["n_components"])
        machine.build(self.n_columns, generator=make_generator(seed))
        with torch.no_grad():
            machine.level_bias.copy_(torch.from_numpy(self._log_frequencies()))
        lists = (self.row, self.column, self.level)
        ratings = Ratings(*(torch.from_numpy(a).to(device) for a in lists), self.n_rows)
        rows = RatedRows(machine.to(device), ratings)
        x = torch.unique(ratings.row)[:, None].double()
        objective = RatingLikelihood(
            float(params["dropout"]), float(params["weight_decay"])
        )
        generator = make_generator(seed, x.device)
        history = self._trainer(params, len(x)).run(
            rows, objective, x, generator=generator
        )
        self.machine = machine.double().requires_grad_(False).eval()
        with torch.no_grad():
            self.fields = self.machine.hidden_fields(ratings)
        return history

    def log_levels(self, row, column):
        """Return log p of the levels of pairs, given the row's other ratings.

        Parameters
        ----------
        row, column : ndarray of shape (m,)
            Pairs of training rows and columns.

        Returns
        -------
        ndarray of shape (m, n_levels)
            In nats.
        """
        keys = self.row * self.n_columns + self.column
        wanted = row * self.n_columns + column
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        own = np.where(keys[place] == wanted, self.level[place], -1)
        return log_levels(self.machine, self.fields, row, column, own)

    def _log_frequencies(self):
        """Return smoothed log-frequencies of the levels by column."""
        shape = self.n_columns, self.n_levels
        codes = self.column * self.n_levels + self.level
        counts = np.bincount(codes, minlength=math.prod(shape)).reshape(shape)
        overall = (counts.sum(0) + 0.5) / (counts.sum() + 0.5 * self.n_levels)
        smooth = counts + PRIOR * overall
        return np.log(smooth / smooth.sum(1, keepdims=True))

    def _trainer(self, params, n_rows):
        """Return the trainer with the settings that fit the rows."""
        n_epochs = params["max_iter"]
        if n_epochs == "auto":
            n_epochs = math.ceil(N_UPDATES / math.ceil(n_rows / params["batch_size"]))
            n_epochs = min(MOST_EPOCHS, max(LEAST_EPOCHS, n_epochs))
        rate = params["learning_rate"]
        return Trainer(
            max_iter=n_epochs,
            batch_size=params["batch_size"],
            learning_rate=LEARNING_RATE if rate == "auto" else float(rate),
            n_warmup_steps=N_WARMUP,
            clip_norm=math.inf,
        )


def log_levels(machine, fields, row, column, own):
    """Return log p of the levels of pairs under a machine.

    Parameters
    ----------
    machine : OrdinalRBM
        Fitted, in double precision.
    fields : Tensor of shape (n_rows, n_hidden)
        f of the rows with all their ratings.
    row, column : ndarray of shape (m,)
        Pairs.
    own : ndarray of shape (m,)
        The level that the row has in this column, which is left out; -1 for none.

    Returns
    -------
    ndarray of shape (m, n_levels)
        In nats.
    """
    if not len(row):
        return np.empty((0, machine.n_levels))

    def _levels(r, c, k):
        """Return log p of the levels of one chunk of pairs."""
        pushed = machine.pushes(c, k.clamp(min=0)) * (k >= 0)[:, None]
        return (machine.level_fields(fields[r] - pushed, c).log_softmax(1),)

    pairs = [torch.from_numpy(a).to(fields.device) for a in (row, column, own)]
    with torch.no_grad():
        return to_numpy(in_chunks(_levels, CHUNK, *pairs)[0])
