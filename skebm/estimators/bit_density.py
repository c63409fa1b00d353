"""What estimators of bits share: the door in, the course of a fit, the threshold."""

import time
import warnings
from abc import abstractmethod
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.callback import with_callbacks
from sklearn.utils.validation import check_is_fitted

from skebm._check import (
    Interval,
    StrOptions,
    check_bits,
    check_units,
    fit_context,
)
from skebm._torch import (
    in_chunks,
    make_generator,
    refuse_forked_process,
    to_numpy,
)
from skebm.energies import BernoulliUnits
from skebm.estimators.draws import check_n_samples
from skebm.estimators.gibbs_density import GibbsDensity
from skebm.estimators.rbm_verdict import independent_score, warn_if_worse
from skebm.estimators.scaling import given_columns
from skebm.estimators.splits import holdout
from skebm.estimators.weighting import counted_units
from skebm.exceptions import InterruptedFitWarning
from skebm.partition import Normalizer

CHUNK = 64
"""Rows per chunk of `energy`."""

MOST_ROWS = 8192
"""Rows that are drawn at once."""


class BitDensity(GibbsDensity):
    """A density of rows of bits with a hand-written training.

    A subclass builds and trains ``energy_`` in `_train`, finds log Z in
    `_find_partition`, and draws missing entries in `_fill`; see also `GibbsDensity`.
    """

    _parameter_constraints: dict = {
        **GibbsDensity._parameter_constraints,
        "learning_rate": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
        ],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "verbose": ["verbose"],
        "binarize": [Interval(Real, None, None, closed="neither"), None],
        "normalizer": [StrOptions({"auto", "sum", "annealing"}), Normalizer, None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    }

    @abstractmethod
    def _train(self, rows, valid):
        """Train ``energy_`` on rows (n, d), look at held-out ones or None.

        Return whether Ctrl-C ended the training.
        """

    @abstractmethod
    def _find_partition(self, rows, generator):
        """Return the `LogPartition` of ``energy_``, given training rows (n, d)."""

    @abstractmethod
    def _fill(self, rows, generator):
        """Return rows (n, d) with NaN entries drawn given the others."""

    @with_callbacks
    @fit_context
    def fit(self, X, y=None, sample_weight=None):
        """Train the machine, find log Z, and set the threshold.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training rows, complete.
        y : Ignored
            For scikit-learn's signature.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            How often each row counts, >= 0; None is once. Whole numbers are the row as
            often; of others only the ratios matter.

        Returns
        -------
        self : BitDensity
            The fitted estimator.
        """
        table = self._begin(X, sample_weight)
        self._begin_tasks(3)
        x = table.rows
        seen, held_out = np.arange(len(x)), np.arange(len(x))
        if self.early_stopping:
            fraction = self.validation_fraction
            seen, held_out = holdout(table, fraction, self._fit_seed)
        rows = self._tensor(x).float()
        valid = rows[torch.from_numpy(held_out)] if self.early_stopping else None
        if self._train(rows[torch.from_numpy(seen)], valid):
            warnings.warn(
                f"fit was interrupted: the machine is that of epoch {self.n_iter_}. "
                "Fit again for the whole training, or lower n_iter.",
                InterruptedFitWarning,
                stacklevel=4,
            )
        self.energy_ = self.energy_.double().requires_grad_(False).eval()
        self._end_task("training")
        self._normalize(rows)
        self._end_task("normalizer")
        training = self._measure(x)
        self._warn_if_worse(rows, training)
        # One of so many copies: p-values count observations.
        known = np.sort(training[held_out])
        self.calibration_energy_ = known[table.copies // 2 :: table.copies]
        self._set_references(x, training)
        self._set_threshold(self._threshold(training))
        self._end_task("calibration")
        return self._end_tasks()

    def sample(self, n_samples=1, *, given=None, random_state=None):
        """Draw new rows of the fitted density.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows, >= 1.
        given : dict or None, default=None
            Column (name or place) to value: rows come from the density of the other
            columns given these.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None takes the estimator's.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_features)
            Rows of bits, given columns included.

        Raises
        ------
        ValueError
            If n_samples < 1, or ``given`` names an unknown or every column.
        """
        check_is_fitted(self)
        refuse_forked_process()
        check_n_samples(n_samples)
        row = self._given_row(given or {})
        generator = make_generator(self._seed(random_state), self.device_)
        drawn = self._filled(np.repeat(row, n_samples, 0), generator)
        return self._named(drawn)

    def _begin(self, X, sample_weight):
        """Forget the last fit; return the counted encoded rows; set device and seed."""
        self.__dict__.pop("explain_baseline_", None)
        table = counted_units(
            self, X, sample_weight, lambda rows: self._encode(rows, reset=True)
        )
        self._set_device_and_seed()
        return table

    def _normalize(self, rows):
        """Set log Z, its interval and its effective sample size."""
        self.log_partition_ = self.log_partition_interval_ = None
        self.log_partition_ess_ = None
        if self.normalizer is None:
            return
        found = self._find_partition(rows, make_generator(self._fit_seed, self.device_))
        self.log_partition_, self.log_partition_interval_ = found.value, found.interval
        self.log_partition_ess_ = found.ess

    def _keep(self, history):
        """Take the numbers of a training run; return whether it was interrupted."""
        self.history_ = {k: np.asarray(v) for k, v in history.history.items()}
        self.n_iter_ = history.n_iter
        return history.interrupted

    def _warn_if_worse(self, rows, energy):
        """Warn if independent columns are clearly more likely than the machine."""
        if self.log_partition_ is None:
            return
        layer = BernoulliUnits()
        usual = independent_score(layer, layer.base_fields(rows).double(), rows)
        score = -energy.mean() - self.log_partition_
        advice = f"Lower learning_rate (got {self.learning_rate!r})"
        warn_if_worse(score, usual, advice=advice)

    def _printer(self):
        """Return what prints a line after every epoch, or None."""
        if not self.verbose:
            return None
        start = time.perf_counter()

        def line(epoch, record):
            print(
                f"[{type(self).__name__}] Iteration {epoch + 1}, "
                f"loss = {record['loss']:.3f}, "
                f"time = {time.perf_counter() - start:.2f}s"
            )

        return line

    def _encode(self, X, *, reset, allow_nan=False):
        """Return X as values in [0, 1], shape (n, d), binarised where asked."""
        rows = check_units(self, X, reset=reset, allow_nan=allow_nan)
        return check_bits(self, rows)

    def _given_row(self, given):
        """Return one encoded row with the given values, NaN elsewhere, shape (1, d)."""
        names = getattr(self, "feature_names_in_", None)
        n = self.n_features_in_
        places, _, values = given_columns(given, names, np.zeros(n), np.ones(n))
        row = np.full((1, n), np.nan)
        row[0, places] = values
        return self._encode(self._named(row), reset=False, allow_nan=True)

    def _filled(self, rows, generator):
        """Return encoded rows (n, d) with NaN entries drawn given the others."""
        pieces = torch.split(self._tensor(rows), MOST_ROWS)
        found = [to_numpy(self._fill(piece, generator)) for piece in pieces]
        return np.concatenate(found)

    def _tensor(self, rows):
        """Return encoded rows in double precision on the device."""
        return torch.from_numpy(rows).to(self.device_, torch.float64)

    def _rows(self, X):
        """Return X checked against the columns of ``fit``, encoded."""
        return self._encode(X, reset=False)

    def _mapped(self, function, rows):
        """Return ``function`` of encoded rows, in chunks of one size, as numpy."""
        refuse_forked_process()
        with torch.inference_mode():
            found = in_chunks(lambda v: (function(v),), CHUNK, self._tensor(rows))
        return to_numpy(found[0])

    def _measure(self, rows):
        """Return E of encoded rows, shape (n_samples,).

        In double precision, rounded to single: the place of a row in its chunk can
        change the last bits of a matrix product.
        """
        return self._mapped(lambda v: self.energy_(v).float(), rows)

    def _calibration_rows(self, rows):
        """Training rows are not kept, so no row is known to be one."""
        return np.zeros(len(rows), dtype=bool)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
