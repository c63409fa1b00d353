"""E(x) of a table's rows, turned into calibrated decisions: anomaly if E(x) > t."""

import warnings
from copy import copy
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import clone
from sklearn.callback import with_callbacks
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from skebm import calibration
from skebm._check import (
    HasMethods,
    Interval,
    check_names,
    check_rows,
    check_table,
    fit_context,
)
from skebm._torch import (
    in_chunks,
    make_generator,
    refuse_forked_process,
    resolve_device,
    to_numpy,
)
from skebm.base import BaseEBM
from skebm.energies import AnomalyEnergy
from skebm.estimators.draws import check_n_samples
from skebm.estimators.row_lookup import RowLookup
from skebm.estimators.wrapped import (
    out_of_fold_energies,
    refuse_temperature,
    refuse_without_energy,
    sample_wrapped,
    wrapped_energy,
    wrapped_log_partition,
)
from skebm.exceptions import InterruptedFitWarning

N_FOLDS = 5
"""Folds that give a wrapped estimator's rows their out-of-fold energies."""

FEWEST_WITH_TWINS = 10
"""Stored rows of which two can be left out."""

AFTER_INTERRUPT = 1000
"""Rows that Ctrl-C leaves in the memory: a fit of a fraction of a second."""


class EnergyOutlierDetector(BaseEBM):
    """Find the anomalies of a table, with p-values and reasons.

    Each row gets an energy E(x), low = typical, and is called an anomaly if
    E(x) > t = -offset_ (- log_partition_). By default E compares the row with stored
    training rows (`skebm.energies.AnomalyEnergy`); any density estimator with
    ``score_samples`` can stand in, then E(x) = -score_samples(x), and so can any fitted
    classifier with logits f_k in ``decision_function``, then
    E(x) = -log sum_k exp(f_k(x)) [3]_; two classes have the logits -f/2 and f/2.

    With ``novelty=False`` a row that was seen in ``fit`` is scored with its own copy
    left out, so ``fit_predict(X)`` equals ``fit(X).predict(X)``. With ``novelty=True``
    every row is a new one, also one that equals a training row: in discrete tables
    many do. Then ``fit_predict(X)`` judges training rows with their own copy left out,
    and ``fit(X).predict(X)`` does not, as in LocalOutlierFactor; see `leave_one_out`.

    Parameters
    ----------
    estimator : estimator with ``fit`` and ``score_samples``, default=None
        Density to use as the energy: KernelDensity, GaussianMixture, a Pipeline that
        ends in one, a fitted one in ``FrozenEstimator``; or a fitted classifier in
        ``FrozenEstimator``, whose rows in ``fit`` should be ones that it has not seen.
        None: stored patterns.
    temperature : float, default=1.0
        T > 0 in E = -T log sum_k exp(f_k / T) of a classifier's logits f: near 0 the
        largest logit counts alone, above 1 all count more evenly. A density has none.
    novelty : bool, default=False
        True: the training rows are clean (one-class), and p-values of new rows are
        conformal. False: training rows may hold anomalies, alone or in clumps.
        `predict` takes new rows in both cases.
    contamination : "auto" or float, default="auto"
        A float in (0, 0.5] is the share of training rows to flag. "auto" aims at a
        false-alarm rate of 5% on normal rows: t is the conformal 95% quantile of the
        energies of the training rows, each with its own copy left out. If
        ``novelty=False``, clear anomalies do not count as normal there
        (`skebm.calibration.without_clear_anomalies`).
    max_memory : int or None, default=50_000
        Rows to store, >= 2; a seeded subsample if there are more. None keeps all.
        Ignored if ``estimator`` is given.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a CUDA device if there is one.
        Ignored if ``estimator`` is given.
    random_state : int, RandomState or None, default=None
        Seed of the subsample, the memories' draws, the folds and the explanations.

    Attributes
    ----------
    energy_ : AnomalyEnergy or None
        The fitted default energy, on ``device_``; None if ``estimator`` is given.
    estimator_ : estimator or None
        The fitted ``estimator``; None for the default energy.
    calibration_energy_ : ndarray of shape (n_calibration,)
        Sorted energies behind the p-values: all stored rows, measured as new rows are;
        out-of-fold rows of a wrapped estimator, rows given to a frozen one, or the rows
        of `calibrate`.
    offset_ : float
        ``decision_function(X) = score_samples(X) - offset_``.
    log_partition_ : float or None
        0.0 for a wrapped density, None for the default energy and for classifiers,
        whose energies are not normalised.
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
    ValueError
        If X holds NaN, fewer than two rows, or no numbers; if ``estimator`` is a
        classifier that is not frozen, or one without logits.
    InvalidParameterError
        If a parameter is out of its range.

    Warns
    -----
    InterruptedFitWarning
        If Ctrl-C ends ``fit``: it is finished on 1,000 rows at most.

    Notes
    -----
    Cost O(n m d) for n rows, m stored rows and d columns, three times that in ``fit``
    if there are columns of two values; memory O(m d). The model is made of training
    rows: a pickle contains them.

    p-values from training rows are leave-one-out. With ``novelty=True`` a stored row
    without its copy and a new row meet the same function of the other rows, up to the
    scales of the columns, which saw every training row. That matters where columns are
    many for the rows: P(p <= .05) was up to .057 with 100 rows of 20 columns, and up
    to .08 with 50 rows of 30 columns. `calibrate` with fresh clean rows makes p-values
    exact (split conformal).

    With ``novelty=False`` a row that equals a stored one is measured without that copy.
    For p-values, a stored row that has equals is measured without one more, so that new
    rows meet the same function again; the threshold, which is for the training table,
    takes training rows as they are. Anomalies among the training rows make p-values
    larger, never smaller.

    Original columns weigh alike: two rows that differ in a column of two values, or in
    a block of one-hot columns, are as far apart there as two random numbers, however
    rare the value, and what a rare value costs by itself is taken off
    (`skebm.energies.AnomalyEnergy`). Limits: distances fade where most columns are
    noise.

    References
    ----------
    .. [1] LeCun, Chopra, Hadsell, Ranzato, Huang (2006), A tutorial on energy-based
       learning, Predicting Structured Data, MIT Press.
    .. [2] Bates, Candes, Lei, Romano, Sesia (2023), Testing for outliers with
       conformal p-values, Annals of Statistics 51(1).
    .. [3] Liu, Wang, Owens, Li (2020), Energy-based out-of-distribution detection,
       NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import EnergyOutlierDetector
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = EnergyOutlierDetector(novelty=True, random_state=0).fit(X)
    >>> detector.predict([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    array([ 1, -1])
    """

    _parameter_constraints: dict = {
        **BaseEBM._parameter_constraints,
        "estimator": [
            HasMethods(["fit", "score_samples"]),
            HasMethods(["fit", "decision_function"]),
            HasMethods(["fit", "predict_proba"]),
            None,
        ],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "novelty": ["boolean"],
        "max_memory": [Interval(Integral, 2, None, closed="left"), None],
    }

    def __init__(
        self,
        estimator=None,
        *,
        temperature=1.0,
        novelty=False,
        contamination="auto",
        max_memory=50_000,
        device="auto",
        random_state=None,
    ):
        self.estimator = estimator
        self.temperature = temperature
        self.novelty = novelty
        self.contamination = contamination
        self.max_memory = max_memory
        self.device = device
        self.random_state = random_state

    @with_callbacks
    @fit_context
    def fit(self, X, y=None):
        """Fit the energy and its threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, at least two; finite numbers unless ``estimator`` takes
            more.
        y : Ignored
            For scikit-learn's signature.

        Returns
        -------
        self : EnergyOutlierDetector
            The fitted detector.
        """
        self.__dict__.pop("explain_baseline_", None)
        self._fit_seed = self._seed()
        if self.temperature != 1.0:
            refuse_temperature(self.estimator)
        fit_energy = self._fit_memory if self.estimator is None else self._fit_wrapped
        training_energy = fit_energy(X)
        self._set_threshold(self._threshold(training_energy))
        return self._end_tasks()

    def fit_predict(self, X, y=None):
        """Fit, and return +1 for typical training rows and -1 for anomalies.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, at least two; each is judged with its own copy left out.
        y : Ignored
            For scikit-learn's signature.

        Returns
        -------
        ndarray of shape (n_samples,)
            +1 or -1.
        """
        return self.fit(X).leave_one_out().predict(X)

    def leave_one_out(self):
        """Return the detector as it judges its own training rows.

        Its readers measure a row that equals a stored one without that copy: energies,
        p-values (ranks among the other training rows), calls and explanations of the
        training table. A wrapped estimator has no rows to leave out.

        Returns
        -------
        EnergyOutlierDetector
            A shallow copy. With ``novelty=False`` it reads as the detector itself.
        """
        check_is_fitted(self)
        judge = copy(self)
        if self.estimator_ is None:
            judge._knows_rows = True
            judge.explain_baseline_ = float(judge._measure(judge._references).mean())
        return judge

    def sample(self, n_samples=1, *, random_state=None):
        """Draw new rows.

        The default energy has no normalised density to draw from, so rows come from a
        kernel density over the stored rows below the threshold (a smoothed bootstrap,
        bandwidth from nearest neighbours). A wrapped estimator draws by its own
        ``sample``.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows, >= 1.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None takes the estimator's.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_features)
            Rows; a DataFrame if ``fit`` saw named columns.

        Raises
        ------
        ValueError
            If n_samples < 1.
        AttributeError
            If the wrapped estimator cannot sample.
        """
        check_is_fitted(self)
        check_n_samples(n_samples)
        seed = self._seed(random_state)
        if self.estimator_ is None:
            threshold = -float(self.offset_)
            generator = make_generator(seed)
            rows = to_numpy(self.energy_.sample(n_samples, threshold, generator))
        else:
            rows = sample_wrapped(self.estimator_, n_samples, seed)
        return self._named(rows)

    def _fit_memory(self, X):
        """Store the rows; return their energies and the reference rows."""
        x = check_rows(self, X, reset=True)
        refuse_forked_process()
        self.device_ = str(resolve_device(self.device))
        self.estimator_, self.log_partition_ = None, None
        rng = np.random.default_rng(self._fit_seed)
        if self.max_memory is not None and len(x) > self.max_memory:
            x = x[rng.permutation(len(x))[: self.max_memory]]
        self._begin_tasks(AnomalyEnergy.n_stages)
        try:
            energy = self._store(x, self._end_task)
        except KeyboardInterrupt:
            kept = min(AFTER_INTERRUPT, len(x))
            warnings.warn(
                f"fit was interrupted: the detector keeps {kept} of {len(x)} rows. "
                "Fit again for the full memory, or lower max_memory.",
                InterruptedFitWarning,
                stacklevel=5,
            )
            x = x[rng.permutation(len(x))[:kept]]
            energy = self._store(x, lambda stage: None)
        self._set_references(x, energy)
        return energy

    def _store(self, x, end_task):
        """Build the default energy from rows ``x``; return their energies."""
        self._lookup, self._knows_rows = RowLookup(x), not self.novelty
        self._calibrated_on_training = True
        own = torch.from_numpy(self._lookup.find(x)).to(self.device_)
        rows = torch.from_numpy(x).to(self.device_)
        self.energy_ = AnomalyEnergy(clean=self.novelty)
        generator = make_generator(self._fit_seed)
        with torch.no_grad():
            for stage in self.energy_.stages(rows, own, generator=generator):
                end_task(stage)
        energy = to_numpy(self.energy_.stored_energy)
        self._set_calibration(energy if self.novelty else self._without_twins(energy))
        return energy

    def _without_twins(self, energy):
        """Return the energies of stored rows, without two copies where there are more.

        A new row that equals a stored one is measured without that copy.
        """
        own = self._lookup.find(self._lookup.rows)
        twins = np.flatnonzero(self._lookup.twin[own] >= 0)
        if not len(twins) or len(own) < FEWEST_WITH_TWINS:
            return energy
        left_out = np.stack([own[twins], self._lookup.twin[own[twins]]], 1)
        energy = energy.copy()
        energy[twins] = self._measure_without(self._lookup.rows[twins], left_out)
        return energy

    def _fit_wrapped(self, X):
        """Fit a clone of ``estimator``; return its energies of the training rows."""
        check_table(self, X)
        refuse_without_energy(self.estimator)
        self.device_, self.energy_ = "cpu", None
        self._calibrated_on_training = self._knows_rows = False
        self.estimator_, out_of_fold = self.estimator, None
        rows = self._rows(X)
        if isinstance(self.estimator, FrozenEstimator):
            self._begin_tasks(1)
        else:
            folds = min(N_FOLDS, len(rows))
            self._begin_tasks(folds + 1)
            out_of_fold = np.empty(len(rows))
            for fold, e in out_of_fold_energies(
                self.estimator, rows, folds, self._fit_seed
            ):
                out_of_fold[fold] = e
                self._end_task("fold")
            self.estimator_ = clone(self.estimator).fit(rows)
        self._end_task("estimator")
        self.log_partition_ = wrapped_log_partition(self.estimator_)
        training = self._measure(rows)
        self._set_calibration(training if out_of_fold is None else out_of_fold)
        self._set_references(rows, training)
        return training

    def _rows(self, X):
        """Return X as the energy takes it: an array, or X itself if wrapped."""
        if self.estimator_ is None:
            return check_rows(self, X, reset=False)
        check_names(self, X, reset=False)
        return X if hasattr(X, "iloc") else np.asarray(X)

    def _measure(self, rows):
        """Return E of checked rows, shape (n_samples,)."""
        if self.estimator_ is not None:
            return wrapped_energy(self.estimator_, rows, self.temperature)
        if not self._knows_rows:
            return self._measure_without(rows, np.full(len(rows), -1))
        found = self._lookup.find(rows)
        rows = np.where(found[:, None] < 0, rows, self._lookup.rows[found])
        return self._measure_without(rows, found)

    def _measure_without(self, rows, left_out):
        """Return E of rows without the stored copies at the given places."""
        refuse_forked_process()
        own = torch.from_numpy(left_out).to(self.device_)
        x = torch.from_numpy(rows).to(self.device_)
        with torch.inference_mode():
            energy = in_chunks(
                lambda *chunk: (self.energy_(*chunk),), self.energy_.chunk, x, own
            )
        return to_numpy(energy[0])

    def _calibration_rows(self, rows):
        """Tell which rows are stored and calibrate, shape (n_samples,), bool.

        If ``novelty=False``, one that equals more than one of them counts as new.
        """
        if not (self._calibrated_on_training and self._knows_rows):
            return np.zeros(len(rows), dtype=bool)
        found = self._lookup.find(rows)
        return (found >= 0) & (self.novelty | (self._lookup.twin[found] < 0))

    def _refuse_training_rows(self, rows):
        """Raise if rows are the training table, or mostly of it and not by chance."""
        if not (self._calibrated_on_training and self._knows_rows):
            return
        n_found = self._lookup.n_shared(rows)
        if n_found is None:
            return
        raise ValueError(
            f"{n_found} of the {len(rows)} rows of X were in fit. Rows that may hold "
            "anomalies are no reference for themselves: no list of them has a known "
            "false discovery rate. Fit clean rows with novelty=True, or call "
            "calibrate(X_clean), and pass new rows; predict and p_values rank the "
            "training rows."
        )

    def _threshold(self, training_energy):
        """Return the energy above which rows are anomalies."""
        if self.contamination != "auto":
            return super()._threshold(training_energy)
        wrapped = self.estimator_ is not None
        typical = self.calibration_energy_ if wrapped else training_energy
        if not self.novelty:
            typical = calibration.without_clear_anomalies(typical)
        return calibration.conformal_threshold(typical)

    def _set_calibration(self, energy):
        """Take the calibration energies."""
        self.calibration_energy_ = np.sort(energy)
