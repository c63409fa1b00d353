"""What estimators of RBMs share: training, log Z, the threshold."""

import time
import warnings
from abc import abstractmethod
from numbers import Integral, Real
from os import PathLike

import numpy as np
import torch
from sklearn.callback import with_callbacks
from sklearn.utils.validation import check_is_fitted

from skebm._check import Interval, StrOptions, check_units, fit_context
from skebm._torch import (
    in_chunks,
    make_generator,
    refuse_forked_process,
    resolve_device,
    to_numpy,
)
from skebm.base import BaseEBM
from skebm.energies import RBM
from skebm.estimators.choices import RBM_NORMALIZERS, RBM_OBJECTIVES, resolve
from skebm.estimators.rbm_drawing import log_partition_of
from skebm.estimators.rbm_readers import CHUNK, RBMReaders
from skebm.estimators.rbm_stream import Stream
from skebm.estimators.rbm_training import RBMRun
from skebm.estimators.rbm_verdict import independent_score, warn_if_worse
from skebm.estimators.splits import holdout
from skebm.estimators.weighting import counted_units
from skebm.exceptions import InterruptedFitWarning
from skebm.objectives import RBMLikelihood
from skebm.partition import Normalizer
from skebm.samplers import marginal_energies


class RBMDensity(RBMReaders):
    """An RBM of any visible units as an estimator.

    A subclass names its units in `_units` and maps checked columns to their values in
    `_encode` and back in `_decode`.
    """

    _parameter_constraints: dict = {
        **BaseEBM._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
        ],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_iter": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "verbose": ["verbose"],
        "objective": [StrOptions(set(RBM_OBJECTIVES)), RBMLikelihood],
        "normalizer": [StrOptions({"auto", *RBM_NORMALIZERS}), Normalizer, None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "checkpoint": [str, PathLike, None],
    }

    @abstractmethod
    def _units(self, rows):
        """Return unbuilt units for encoded training rows."""

    def _encode(self, X, *, reset):
        """Return X in the values of the units, shape (n, d), NaN where missing."""
        return check_units(self, X, reset=reset)

    def _rescaled(self, rows):
        """Return counted rows, real columns scaled anew: weights move the mean."""
        return rows

    def _log_volume(self):
        """Return what log Z gains by leaving the values of the units, in nats."""
        return 0.0

    @with_callbacks
    @fit_context
    def fit(self, X, y=None, sample_weight=None):
        """Train the machine, find log Z, and set the threshold.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training rows; NaN entries are missing at random.
        y : Ignored
            For scikit-learn's signature.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            How often each row counts, >= 0; None is once. Whole numbers are the row as
            often; of others only the ratios matter.

        Returns
        -------
        self : RBMDensity
            The fitted estimator.
        """
        table = self._begin(X, sample_weight)
        self._begin_tasks(3)
        held_out = self._train(table)
        self._end_task("training")
        self._partition = self._find_partition(self._tensor(table.rows))
        self._end_task("normalizer")
        self._finish(table.rows, held_out, table.copies)
        self._judge(table.rows)
        self._end_task("calibration")
        return self._end_tasks()

    @fit_context
    def partial_fit(self, X, y=None):
        """Take one step of the likelihood gradient on a batch of rows.

        The rate is ``learning_rate``, or what "auto" means for the first batch. log Z
        is found when it is next read; the threshold is that of the batch, which counts
        as one more of ``n_iter_`` and of ``history_``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            One batch.
        y : Ignored
            For scikit-learn's signature.

        Returns
        -------
        self : RBMDensity
            The same estimator, one step further.
        """
        first = not hasattr(self, "_stream")
        x = self._encode(X, reset=first and not hasattr(self, "energy_"))
        if first:
            self.device_ = str(resolve_device(self.device))
            self._fit_seed = getattr(self, "_fit_seed", None) or self._seed()
            known = getattr(self, "energy_", None)
            rbm = self._new_rbm(x) if known is None else known
            self._stream = self._new_stream(rbm, self._tensor(x))
        self._stream.update(self._tensor(x))
        self._note(self._stream.record)
        self._settle(self._stream.model(), self._stream.state.chains)
        self._finish(x, np.arange(len(x)))
        return self

    def _note(self, record):
        """Add the numbers of a batch to those of the training so far."""
        self.n_iter_ = getattr(self, "n_iter_", 0) + 1
        known = getattr(self, "history_", {})
        added = {k: np.append(known.get(k, []), v) for k, v in record.items()}
        self.history_ = known | added

    @property
    def log_partition_(self):
        """Log Z in nats; None where the normaliser is.

        Returns
        -------
        object
            Log Z in nats; None where the normaliser is.
        """
        return self._known_partition()[0]

    @property
    def log_partition_interval_(self):
        """95% interval of log Z.

        Returns
        -------
        object
            95% interval of log Z.
        """
        return self._known_partition()[1]

    @property
    def log_partition_ess_(self):
        """Effective sample size behind log Z; infinite where exact.

        Returns
        -------
        object
            Effective sample size behind log Z; infinite where exact.
        """
        return self._known_partition()[2]

    @property
    def offset_(self):
        """``decision_function(X) = score_samples(X) - offset_``.

        Returns
        -------
        object
            ``decision_function(X) = score_samples(X) - offset_``.
        """
        return -self._largest_energy - (self.log_partition_ or 0.0)

    def _begin(self, X, sample_weight):
        """Forget the last fit; return the counted encoded rows; set device and seed."""
        for name in ("explain_baseline_", "_stream"):
            self.__dict__.pop(name, None)
        table = counted_units(
            self, X, sample_weight, lambda rows: self._encode(rows, reset=True)
        )
        if sample_weight is not None:
            table = table._replace(rows=self._rescaled(table.rows))
        self._set_device_and_seed()
        return table

    def _new_rbm(self, x):
        """Return a built RBM for encoded rows, on the device."""
        rbm = RBM(self.n_components, self._units(x))
        rbm.build(x.shape[1], generator=make_generator(self._fit_seed))
        return rbm.to(self.device_)

    def _new_run(self, rbm):
        """Return a training of a built RBM."""
        objective = resolve(self.objective, RBM_OBJECTIVES)
        return RBMRun(rbm, objective, self.get_params(False), self._fit_seed)

    def _new_stream(self, rbm, x):
        """Return a training of an RBM that goes on as batches come, x the first."""
        objective = resolve(self.objective, RBM_OBJECTIVES)
        return Stream(rbm, objective, self.learning_rate, x, self._fit_seed)

    def _train(self, table):
        """Train on counted rows; return the places of the held-out ones, or all."""
        x = table.rows
        rbm = self._new_rbm(x)
        seen, held_out = np.arange(len(x)), np.arange(len(x))
        if self.early_stopping:
            fraction = self.validation_fraction
            seen, held_out = holdout(table, fraction, self._fit_seed)
        rows = self._tensor(x)
        history = self._new_run(rbm).fit(
            rows[torch.from_numpy(seen)],
            rows[torch.from_numpy(held_out)] if self.early_stopping else None,
            self._printer(rbm, rows) if self.verbose else None,
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
        self._settle(rbm, history.state.chains)
        return held_out

    def _progress(self, rbm, rows, record):
        """Return what to print about an epoch."""
        return f"reconstruction error = {record['reconstruction_error']:.4f}"

    def _printer(self, rbm, rows):
        """Return what prints a line after every epoch, as scikit-learn's RBM does."""
        clock = [time.perf_counter()]

        def line(epoch, record):
            now = time.perf_counter()
            print(
                f"[{type(self).__name__}] Iteration {epoch + 1}, "
                f"{self._progress(rbm, rows, record)}, time = {now - clock[0]:.2f}s"
            )
            clock[0] = now

        return line

    def _settle(self, rbm, chains):
        """Take a trained RBM as the model; log Z is unknown until it is read."""
        self.energy_ = rbm.double().requires_grad_(False).eval()
        self._chains, self._partition = chains.clone(), None
        with torch.no_grad():
            hidden = self.energy_.hidden_mean(chains.double())
        generator = make_generator(self._fit_seed, hidden.device)
        self.h_samples_ = to_numpy(torch.bernoulli(hidden, generator=generator))
        self.components_ = to_numpy(self.energy_.weight)
        self.intercept_hidden_ = to_numpy(self.energy_.hidden_bias)
        self.intercept_visible_ = to_numpy(self.energy_.visible_bias)
        self._n_features_out = self.n_components

    def _judge(self, x):
        """Warn if independent columns are more likely than the trained machine."""
        if self.log_partition_ is not None:
            score = self._log_volume() - self._mean_energy - self.log_partition_
            layer, start = self.energy_.layer, self.energy_.start
            usual = independent_score(layer, start, self._tensor(x))
            advice = (
                f"Lower learning_rate (got {self.learning_rate!r}), or use "
                'objective="tempered"'
            )
            slack = 3.0 * x.shape[1] if layer.states() is None else 0.0
            warn_if_worse(score, usual, advice=advice, slack=slack)

    def _finish(self, x, held_out, copies=1):
        """Calibrate, set the threshold and what explanations compare with."""
        training = self._measure(x)
        self._mean_energy = float(training.mean())
        # One of so many copies: p-values count observations.
        self.calibration_energy_ = np.sort(training[held_out])[copies // 2 :: copies]
        self._set_references(x, training)
        self._set_threshold(self._threshold(training))

    def _set_threshold(self, threshold):
        """Keep the energy above which rows are anomalies."""
        self._largest_energy = float(threshold)

    def _known_partition(self):
        """Return log Z, interval and effective sample size, found when first read."""
        check_is_fitted(self, "energy_")
        if self._partition is None:
            self._partition = self._find_partition(self._chains)
        return self._partition

    def _find_partition(self, x):
        """Return log Z, its interval and effective sample size in the units of X."""
        if self.normalizer is None:
            return None, None, None
        found = log_partition_of(self.energy_, self.normalizer, x, self._fit_seed)
        shift = self._log_volume()
        low, high = found.interval
        return found.value + shift, (low + shift, high + shift), found.ess

    def _tensor(self, rows):
        """Return encoded rows in single precision on the device."""
        return torch.from_numpy(rows).to(self.device_, torch.float32)

    def _rows(self, X):
        """Return X checked against the columns of ``fit``, encoded."""
        return self._encode(X, reset=False)

    def _measure(self, rows):
        """Return E of encoded rows, missing entries summed out, shape (n_samples,).

        In double precision, rounded to single: the place of a row in its chunk can
        change the last bits of a matrix product.
        """
        refuse_forked_process()
        x = torch.from_numpy(rows).to(self.device_, torch.float64)
        with torch.inference_mode():
            e = in_chunks(lambda chunk: (self.energy_(chunk),), CHUNK, x)[0].clone()
            partial = x.isnan().any(1)
            if partial.any():
                e[partial] = marginal_energies(
                    self.energy_, x[partial], seed=self._fit_seed
                )
        return to_numpy(e.float())

    def _calibration_rows(self, rows):
        """Training rows are not kept, so no row is known to be one."""
        return np.zeros(len(rows), dtype=bool)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
