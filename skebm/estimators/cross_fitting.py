"""Rows that training did not see: they stop it, and they calibrate."""

import copy
import warnings
from typing import NamedTuple

import numpy as np

from skebm.estimators.splits import N_FOLDS, can_hold_out, folds, holdout
from skebm.exceptions import InterruptedFitWarning, PartitionWarning

N_LARGE = 2000
"""Observations from which no held-out rows stop a training that does not ask for it."""

N_MANY = 500
"""Observations from which one fold calibrates where it does not stop training."""

MOST_CALIBRATING = 2000
"""Observations of that fold."""

FEW_EPOCHS = 100
"""Epochs of a table with too few rows to hold some out, where no number is given."""


class Unseen(NamedTuple):
    """What is known about rows that training did not see.

    Attributes
    ----------
    places : ndarray of shape (m,)
        Places of the rows that calibrate.
    log_density : ndarray of shape (m,) or None
        Their log-density under the models of the folds; None where the model itself
        did not see them, or where there are too few rows to keep some out.
    """

    places: np.ndarray
    log_density: np.ndarray | None

    def energies(self, estimator, rows):
        """Return energies of these rows, comparable with those of the model."""
        if self.log_density is None:
            return estimator._measure(rows[self.places])
        return -self.log_density - (estimator.log_partition_ or 0.0)


def train_unseen(estimator, table, *, comparable=True):
    """Train an estimator on counted rows, and keep some of them unseen.

    The estimator has `_train_on(rows, valid, last_epoch, on_epoch)`, which trains
    ``energy_`` and returns whether Ctrl-C ended that, and `_normalize(rows)`.

    Parameters
    ----------
    estimator : BaseEBM
        With ``early_stopping``, ``validation_fraction`` and ``n_iter``.
    table : Counted
        Training rows.
    comparable : bool, default=True
        Whether energies of several fits compare: log Z is known. Else rows are held
        out only with ``early_stopping=True``.

    Returns
    -------
    Unseen
        What calibrates.
    """
    x = table.rows
    if estimator.early_stopping is True:
        seen, places = holdout(
            table, estimator.validation_fraction, estimator._fit_seed
        )
        _train(estimator, x[seen], x[places])
        return Unseen(places, None)
    if not comparable:
        _train(estimator, x, None)
        return Unseen(np.arange(len(x)), None)
    stops = (
        estimator.early_stopping == "auto"
        and estimator.n_iter == "auto"
        and table.n_observations < N_LARGE
    )
    if not can_hold_out(table):
        _train(estimator, x, None, FEW_EPOCHS if stops else None)
        return Unseen(np.arange(len(x)), None)
    return _cross_fitted(estimator, table, stops)


def _splits(table, stops, seed):
    """Return five folds, or one where it only calibrates many rows."""
    n = table.n_observations
    if stops or n < N_MANY:
        return folds(table, N_FOLDS, seed)
    return [holdout(table, min(1 / N_FOLDS, MOST_CALIBRATING / n), seed)]


def _cross_fitted(estimator, table, stops):
    """Train on every fold, then on all rows for as long as the folds say."""
    x, splits = table.rows, _splits(table, stops, estimator._fit_seed)
    found, usual, curves = [], [], []
    for seen, places in splits:
        fold, curve = _fold(estimator), {}
        valid = x[places] if stops else None
        if fold._train_on(x[seen], valid, None, _noting(curve)):
            params = estimator.get_params(deep=False)
            vars(estimator).update(vars(fold) | params)
            _warn(estimator)
            return Unseen(places, None)
        found.append(_log_density(fold, x[seen], x[places]))
        curves.append(curve)
        if stops:
            fold = _independent(_fold(estimator), x[seen])
            usual.append(_log_density(fold, x[seen], x[places]))
    unseen = np.concatenate([places for _, places in splits])
    if stops and not _gains(found, usual):
        n_iter = estimator.n_iter
        _independent(estimator, x)
        estimator.n_iter = n_iter
        return Unseen(unseen, np.concatenate(usual))
    _train(estimator, x, None, best_epoch(curves) if stops else None)
    return Unseen(unseen, np.concatenate(found))


def _fold(estimator):
    """Return a copy of an estimator that trains on a part of the rows in silence."""
    fold = copy.copy(estimator)
    vars(fold).update({"verbose": 0, "checkpoint": None})
    return fold


def _independent(estimator, x):
    """Make an estimator the model of independent columns; return it."""
    estimator.n_iter = 0
    estimator._train_on(x, None, None, None)
    return estimator


def _log_density(fold, x, unseen):
    """Return the log-density of rows that a fold did not see."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PartitionWarning)
        fold._normalize_fold(x)
    return -fold._measure(unseen) - fold.log_partition_


def _gains(found, usual):
    """Return whether rows gain more over independent columns than the gain's error."""
    gains = np.array([(f - u).mean() for f, u in zip(found, usual, strict=True)])
    return gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains))


def best_epoch(curves):
    """Return the epoch with the least mean held-out loss.

    Parameters
    ----------
    curves : list of dict of int to float
        Held-out loss by epoch, for every fold.

    Returns
    -------
    int
        Among the epochs that every fold evaluated; 1 if there is none.
    """
    common = set.intersection(*(set(curve) for curve in curves)) or {1}
    return min(sorted(common), key=lambda e: sum(c.get(e, 0.0) for c in curves))


def _train(estimator, x, valid, last_epoch=None):
    """Train the final model; warn if Ctrl-C ended that."""
    if estimator._train_on(x, valid, last_epoch, None):
        _warn(estimator)


def _warn(estimator):
    """Warn that Ctrl-C ended the training."""
    warnings.warn(
        f"fit was interrupted: the machine is that of epoch {estimator.n_iter_}. "
        "Fit again for the whole training, or lower n_iter.",
        InterruptedFitWarning,
        stacklevel=6,
    )


def _noting(curve):
    """Return what notes the held-out loss of every evaluated epoch."""

    def note(epoch, record):
        if "valid_loss" in record:
            curve[epoch + 1] = record["valid_loss"]

    return note


def until(last_epoch, on_epoch):
    """Return what follows every epoch, and ends training with the given one.

    Parameters
    ----------
    last_epoch : int or None
        Counted from 1; None lets training run.
    on_epoch : callable or None
        See `Trainer.run`.

    Returns
    -------
    callable
        For `Trainer.run`.
    """

    def follow(epoch, record):
        if on_epoch is not None:
            on_epoch(epoch, record)
        return last_epoch is not None and epoch + 1 >= last_epoch

    return follow
