"""E(v; u) = A(v) - (b + F u)'phi(v) - sum_j log(1 + exp(c_j + G_j u + W_j phi(v)))."""

import math
import warnings
from numbers import Integral, Real
from os import PathLike

import numpy as np
import torch
from sklearn.base import clone
from sklearn.callback import with_callbacks

from skebm._check import Interval, StrOptions, check_rows, fit_context
from skebm._torch import (
    make_generator,
    to_numpy,
)
from skebm.base import BaseEBM
from skebm.energies import ContextRBM, Units
from skebm.estimators.choices import CONDITIONAL_OBJECTIVES, resolve
from skebm.estimators.conditional_density import ConditionalDensity
from skebm.estimators.contexts import ContextColumns, Given, VisibleColumns
from skebm.estimators.splits import split
from skebm.exceptions import InterruptedFitWarning
from skebm.objectives import ConditionalLikelihood
from skebm.samplers.conditional_rbm import listed_states
from skebm.trainer import Trainer

N_UPDATES = 2000
"""Updates of a whole training."""

MOST_EPOCHS = 500
"""Epochs of a small table, which needs fewer updates."""

START_VARIANCE = 0.03
"""Share of a real column's variance that is left to its noise at the start."""

N_ANNEALED = 200
"""Rows that set the threshold where log Z(u) is annealed row by row."""


class ConditionalRBM(ConditionalDensity):
    """A restricted Boltzmann machine of rows given a context, with its normaliser.

    p(v | u) = exp(-E(v; u)) / Z(u) with
    E(v; u) = A(v) - (b + F u)'phi(v) - sum_j log(1 + exp(c_j + G_j u + W_j phi(v))):
    hidden bits h with
    E(v, h; u) = A(v) - (b + F u)'phi(v) - (c + G u)'h - h'W phi(v), summed out. The
    context u holds given features, the rows before in the same sequence, or both.

    Parameters
    ----------
    n_components : int, default=10
        Hidden bits, >= 0. They hold what the parts of the context say together; with 0
        the model is a logistic, softmax or linear regression.
    units : {"categorical", "bernoulli", "gaussian"} or Units, default="categorical"
        What the columns of X hold: codes 0, 1, ..., as many as X has; bits; real
        numbers. ``CategoricalUnits(6)`` leaves room for codes that X lacks,
        ``MixedUnits`` mixes kinds.
    n_lags : int, default=0
        Rows before in the same sequence that belong to the context, >= 0. 0: the order
        of the rows means nothing.
    objective : {"auto", "cd"} or ConditionalLikelihood, default="auto"
        "auto": the exact gradient up to 512 visible states, beyond that CD-5.
    learning_rate : float, default=0.05
        Largest rate of AdamW, > 0; it falls to 0.
    batch_size : int, default=256
        Rows per update, >= 1.
    n_iter : int or "auto", default="auto"
        Epochs, >= 1. "auto": 2,000 updates, at most 500 epochs.
    early_stopping : bool, default=False
        Keep the best machine by the log-likelihood of held-out rows, and stop when 10
        epochs bring no better one.
    validation_fraction : float, default=0.1
        Share of the rows, in (0, 1), held out for that; they also calibrate.
    checkpoint : str, path or None, default=None
        File to write to during training. A fit with the same data and parameters goes
        on from it, to the same bits.
    contamination : "auto" or float, default="auto"
        A float in (0, 0.5] is the share of training rows to flag. "auto" aims at a
        false-alarm rate of 5% on normal rows.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a CUDA device if there is one.
    random_state : int, RandomState or None, default=None
        Seed of weights, batches and draws.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_statistics)
        W; statistics are the columns of X, one-hot for codes.
    coef_visible_ : ndarray of shape (n_statistics, n_context_)
        F. Columns: for every lag the statistics of that row, zero where it is missing,
        then a one where it is; then the context.
    coef_hidden_ : ndarray of shape (n_components, n_context_)
        G.
    intercept_visible_, intercept_hidden_ : ndarray
        b and c. Like the others for columns and contexts in the units they came in.
    n_context_ : int
        Length of u.
    energy_ : ContextRBM
        E(v; u) of scaled columns, in double precision, on ``device_``.
    calibration_energy_ : ndarray of shape (n_calibration,)
        Sorted energies of the held-out rows, or of the training rows where none were
        held out.
    history_ : dict of str to ndarray
        One number per epoch: "loss", and "valid_loss" with held-out rows.
    n_iter_ : int
        Epochs run.
    log_partition_ : float
        The log volume that scaling took, 0 without real columns: log Z(u) is part of
        ``energy``.
    offset_ : float
        ``decision_function(X) = score_samples(X) - offset_``.
    explain_baseline_ : float
        Mean energy of the reference rows; see `explain`.
    device_ : str
        Where the energy lives.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if X was a DataFrame with string names.

    Raises
    ------
    DataDomainError
        If X holds something else than its units.
    DivergenceError
        If training diverges twice; the learning rate is halved in between.

    Warns
    -----
    InterruptedFitWarning
        If Ctrl-C ends training: the last whole epoch is kept and ``fit`` finished.

    Notes
    -----
    log Z(u) is exact where the visible or the hidden layer has up to 4,096 states: for
    one column of codes always, else up to 12 hidden bits. Beyond that it is annealed
    at about 0.05 s for each context, and 200 rows set the threshold. Limits: a row
    sees ``n_lags`` rows back and no further; a single threshold for all contexts flags
    more rows where the next row is hard to foresee.

    References
    ----------
    .. [1] Taylor, Hinton, Roweis (2006), Modeling human motion using binary latent
       variables, NeurIPS.
    .. [2] Mnih, Larochelle, Hinton (2011), Conditional restricted Boltzmann machines
       for structured output prediction, UAI.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import ConditionalRBM
    >>> X = np.tile([[0], [1], [2]], (50, 1))
    >>> model = ConditionalRBM(n_lags=1, n_iter=50, random_state=0).fit(X)
    >>> model.next_probabilities([[0], [1]]).round(1)
    array([[0., 0., 1.]])
    """

    _parameter_constraints: dict = {
        **BaseEBM._parameter_constraints,
        "n_components": [Interval(Integral, 0, None, closed="left")],
        "units": [StrOptions({"bernoulli", "categorical", "gaussian"}), Units],
        "n_lags": [Interval(Integral, 0, None, closed="left")],
        "objective": [StrOptions(set(CONDITIONAL_OBJECTIVES)), ConditionalLikelihood],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "checkpoint": [str, PathLike, None],
    }

    def __init__(
        self,
        n_components=10,
        *,
        units="categorical",
        n_lags=0,
        objective="auto",
        learning_rate=0.05,
        batch_size=256,
        n_iter="auto",
        early_stopping=False,
        validation_fraction=0.1,
        checkpoint=None,
        contamination="auto",
        device="auto",
        random_state=None,
    ):
        self.n_components = n_components
        self.units = units
        self.n_lags = n_lags
        self.objective = objective
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.checkpoint = checkpoint
        self.contamination = contamination
        self.device = device
        self.random_state = random_state

    @with_callbacks
    @fit_context
    def fit(self, X, y=None, context=None, lengths=None):
        """Train the machine and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows; with ``n_lags`` the rows of sequences, one after the other.
        y : Ignored
            For scikit-learn's signature.
        context : array-like of shape (n_samples, n_context) or None, default=None
            Given features of each row.
        lengths : array-like of int of shape (n_sequences,) or None, default=None
            Lengths of the sequences in X, which sum to n_samples; None means that X
            is one sequence.

        Returns
        -------
        self : ConditionalRBM
            The fitted estimator.
        """
        if getattr(y, "ndim", None) == 2:
            raise ValueError(
                "Got a table as y, which is ignored. Pass a context by name: "
                "fit(X, context=...)."
            )
        wide = self._begin(Given(X, context, lengths))
        self._begin_tasks(2)
        held_out = self._train(wide)
        self._end_task("training")
        self._finish(wide, held_out)
        self._end_task("calibration")
        return self._end_tasks()

    def _begin(self, given):
        """Forget the last fit; return wide rows; set device and seed."""
        self.__dict__.pop("explain_baseline_", None)
        rows = check_rows(self, given.X, reset=True)
        self._set_device_and_seed()
        self._columns = VisibleColumns(self.units, rows)
        self._context = ContextColumns(given.context, len(rows))
        self.log_partition_ = float(np.log(self._columns.scale).sum())
        return self._wide(given, rows)

    def _train(self, wide):
        """Train on wide rows; return the places of the held-out ones, or all."""
        x = self._joined(wide).float()
        d = self.n_features_in_
        self.n_context_ = x.shape[1] - d
        units = clone(self._columns.units)
        energy = ContextRBM(self.n_context_, self.n_components, units)
        energy.build(x.shape[1], generator=make_generator(self._fit_seed))
        energy.to(self.device_)
        seen, held_out = np.arange(len(x)), np.arange(len(x))
        if self.early_stopping:
            seen, held_out = split(len(x), self.validation_fraction, self._fit_seed)
        rows = x[torch.from_numpy(seen)]
        _match(energy, rows[:, -d:])
        history = self._trainer(len(seen)).run(
            energy,
            resolve(self.objective, CONDITIONAL_OBJECTIVES),
            rows,
            x_valid=x[torch.from_numpy(held_out)] if self.early_stopping else None,
            generator=make_generator(self._fit_seed, self.device_),
        )
        self.history_ = {k: np.asarray(v) for k, v in history.history.items()}
        self.n_iter_ = history.n_iter
        if history.interrupted:
            warnings.warn(
                f"fit was interrupted: the machine is that of epoch {history.n_iter}. "
                "Fit again for the whole training, or lower n_iter.",
                InterruptedFitWarning,
                stacklevel=5,
            )
        self._settle(energy)
        return held_out

    def _trainer(self, n_rows):
        """Return the trainer with the estimator's settings."""
        n_epochs = self.n_iter
        if n_epochs == "auto":
            n_epochs = round(N_UPDATES / math.ceil(n_rows / self.batch_size))
            n_epochs = min(MOST_EPOCHS, max(1, n_epochs))
        return Trainer(
            max_iter=n_epochs,
            batch_size=self.batch_size,
            learning_rate=float(self.learning_rate),
            early_stopping=self.early_stopping,
            checkpoint=self.checkpoint,
        )

    def _settle(self, energy):
        """Take a trained energy as the model; read its weights in the units of X."""
        self.energy_ = energy.double().requires_grad_(False).eval()
        place, size = self._statistics_scaling()
        lag = np.append(place, 0.0), np.append(size, 1.0)
        of_lags = [np.tile(part, self.n_lags) for part in lag]
        given = self._context
        center = np.concatenate([of_lags[0], given.location])
        unit = np.concatenate([of_lags[1], given.scale])
        machine = energy.machine
        F = to_numpy(energy.visible_context) / unit
        G = to_numpy(energy.hidden_context) / unit
        self.components_ = to_numpy(machine.weight) * size
        self.coef_visible_, self.coef_hidden_ = F * size[:, None], G
        b, c = to_numpy(machine.visible_bias), to_numpy(machine.hidden_bias)
        self.intercept_visible_ = place + size * (b - F @ center)
        self.intercept_hidden_ = c - G @ center

    def _statistics_scaling(self):
        """Return location and scale of the statistics, shapes (n_statistics,)."""
        both = np.stack([self._columns.location, self._columns.scale])
        layer = self.energy_.layer
        wide = layer.over_statistics(torch.from_numpy(both).to(self.device_))
        return to_numpy(wide)

    def _finish(self, wide, held_out):
        """Calibrate, set the threshold and what explanations compare with."""
        training_rows, rows = wide, wide[held_out]
        if listed_states(self.energy_) is None:
            order = np.random.default_rng(self._fit_seed).permutation
            training_rows = wide[order(len(wide))[:N_ANNEALED]]
            rows = rows[order(len(rows))[:N_ANNEALED]]
        training = self._measure(training_rows)
        all_rows = len(held_out) == len(wide)
        energy = training if all_rows else self._measure(rows)
        self.calibration_energy_ = np.sort(energy)
        self._set_references(training_rows, training)
        self._set_threshold(self._threshold(training))


def _match(energy, v):
    """Fit the visible layer alone to rows; start real columns narrow.

    Variances that hold all the spread of a column leave none to the hidden bits: the
    likelihood is then flat in W.
    """
    energy.match(v)
    with torch.no_grad():
        for name, weight in energy.layer.named_parameters():
            if name.endswith("log_variance"):
                weight.copy_((START_VARIANCE * weight.exp() + 1 / len(v)).log())
