"""The estimator contract, written once: E(x) in, sklearn's readers out."""

import warnings
from abc import ABC, abstractmethod
from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skebm import calibration
from skebm._check import Interval, StrOptions, take_rows
from skebm._torch import on_cpu, refuse_forked_process, resolve_device
from skebm.exceptions import NotNormalizedError
from skebm.explain import row_picker, shapley_contributions

N_REFERENCES = 8
"""Typical training rows that explanations compare with."""


def _is_normalized(estimator):
    """Tell whether mean log-densities compare between models; raise advice if not."""
    if getattr(estimator, "log_partition_", 0.0) is None:
        raise NotNormalizedError(
            f"The energy of this {type(estimator).__name__} has no known normaliser, "
            "so its mean is no score to select models by. Use "
            "skebm.metrics.make_outlier_scorer with labelled rows, or wrap a density "
            "such as GaussianMixture."
        )
    return True


class Fitting(CallbackSupportMixin, BaseEstimator):
    """What every estimator of skebm does around its fit: names, seeds, tasks, pickles.

    A subclass has the parameters ``device`` and ``random_state``.
    """

    def _named(self, rows):
        """Return rows as a DataFrame if ``fit`` saw named columns."""
        names = getattr(self, "feature_names_in_", None)
        if names is None or hasattr(rows, "columns"):
            return rows

        import pandas as pd

        return pd.DataFrame(rows, columns=names)

    def _column_names(self):
        """Return the names of the columns, or their places where they have none."""
        return getattr(self, "feature_names_in_", range(self.n_features_in_))

    def _begin_tasks(self, n_tasks):
        """Open the callbacks' root task of ``fit``, in ``n_tasks`` parts."""
        root = self._init_callback_context(max_subtasks=n_tasks)
        root.call_on_fit_task_begin(estimator=self)

    def _end_task(self, name):
        """Report one part of ``fit`` as done."""
        task = self._callback_fit_ctx.subcontext(task_name=name)
        task.call_on_fit_task_begin(estimator=self)
        task.call_on_fit_task_end(estimator=self)

    def _end_tasks(self):
        """Close the root task; return self."""
        self._callback_fit_ctx.call_on_fit_task_end(estimator=self)
        return self

    def _set_device_and_seed(self):
        """Set ``device_`` and the seed of all randomness in ``fit``."""
        refuse_forked_process()
        self.device_, self._fit_seed = str(resolve_device(self.device)), self._seed()

    def _seed(self, random_state=None):
        """Return one integer seed from ``random_state``, by default the estimator's."""
        source = self.random_state if random_state is None else random_state
        return int(check_random_state(source).randint(np.iinfo(np.int32).max))

    def __getstate__(self):
        """Return the state to pickle, with its tensors on the CPU."""
        state = super().__getstate__()
        if str(state.get("device_", "cpu")) != "cpu":
            params = self.get_params(deep=False)
            fitted = {k: on_cpu(v) for k, v in state.items() if k not in params}
            state = state | fitted | {"device_": "cpu"}
        return state


class BaseEBM(OutlierMixin, Fitting, ABC):
    """The members that every density estimator of skebm shares.

    A subclass fits ``offset_``, ``calibration_energy_``, ``log_partition_`` (nats;
    None = unknown) and whatever its hooks read. Low energy = typical; scikit-learn's
    score is its negative.
    """

    _parameter_constraints: dict = {
        "contamination": [
            StrOptions({"auto"}),
            Interval(Real, 0, 0.5, closed="right"),
        ],
        "device": [str],
        "random_state": ["random_state"],
    }

    @abstractmethod
    def _rows(self, X):
        """Return X checked against the columns of ``fit``, as `_measure` takes it."""

    @abstractmethod
    def _measure(self, rows):
        """Return E of checked rows, shape (n_samples,), float64."""

    @abstractmethod
    def _calibration_rows(self, rows):
        """Tell which rows are among the calibration rows, shape (n_samples,), bool."""

    def _refuse_training_rows(self, rows):
        """Raise if rows are training rows that no list of false discoveries is for."""

    def energy(self, X):
        """Return the energy of each row; low means typical.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,)
            E(x), float64, finite.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If X holds NaN or infinity, or other columns than in ``fit``.
        """
        check_is_fitted(self)
        return self._measure(self._rows(X))

    def score_samples(self, X):
        """Return -energy(X) - log_partition_; high means typical.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,)
            The log-density in nats, float64; up to a constant where
            ``log_partition_`` is None.
        """
        return -self.energy(X) - (self.log_partition_ or 0.0)

    @available_if(_is_normalized)
    def score(self, X, y=None):
        """Return the mean log-density of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns seen in ``fit``.
        y : Ignored
            For scikit-learn's signature.

        Returns
        -------
        float
            Nats per row; comparable between models.

        Raises
        ------
        AttributeError
            If ``log_partition_`` is None: the energy is not normalised.
        """
        return float(np.mean(self.score_samples(X)))

    def decision_function(self, X):
        """Return score_samples(X) - offset_; negative means anomaly.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,)
            Signed margin, float64.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Return +1 for typical rows and -1 for anomalies.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,)
            +1 or -1.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X):
        """Return conformal p-values: the share of normal rows at least as strange.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,)
            In (0, 1]; small = anomalous. P(p <= a) <= a for new rows that are
            exchangeable with the calibration rows, in discrete and mixed columns too;
            anomalies among the calibration rows make p larger. At least
            1 / (n_calibration + 1).
        """
        check_is_fitted(self)
        rows = self._rows(X)
        return calibration.conformal_p_values(
            self._measure(rows),
            self.calibration_energy_,
            own=self._calibration_rows(rows),
        )

    def predict_fdr(self, X, q=0.05):
        """Return +1 or -1 such that at most a share q of the -1 are false, on average.

        Benjamini-Hochberg over `p_values`: the call on a row depends on the other rows
        of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns seen in ``fit``.
        q : float, default=0.05
            False discovery rate, in (0, 1).

        Returns
        -------
        ndarray of shape (n_samples,)
            +1 or -1.

        Raises
        ------
        ValueError
            If q is out of its range, or X is the training table, or mostly of it, of
            a detector that takes it for a mix of normal rows and anomalies.
        """
        calls = calibration.benjamini_hochberg(self.p_values(X), q)
        self._refuse_training_rows(self._rows(X))
        return np.where(calls, -1, 1)

    def calibrate(self, X_clean):
        """Take p-values, and the "auto" threshold, from fresh normal rows.

        With rows that played no part in ``fit`` the p-values are exactly valid (split
        conformal). A float ``contamination`` keeps its threshold.

        Parameters
        ----------
        X_clean : array-like of shape (n_samples, n_features)
            Normal rows, exchangeable with the normal rows to come; 19 or more, or no
            p-value can reach 0.05.

        Returns
        -------
        self : BaseEBM
            The same estimator, recalibrated.
        """
        energy = np.sort(self.energy(X_clean))
        if len(energy) < 19:
            warnings.warn(
                f"calibrate got {len(energy)} rows, so no p-value can be below "
                f"{1 / (len(energy) + 1):.2g}. Pass 19 rows or more.",
                UserWarning,
                stacklevel=2,
            )
        self.calibration_energy_ = energy
        self._calibrated_on_training = False
        if self.contamination == "auto":
            self._set_threshold(calibration.conformal_threshold(energy))
        return self

    def explain(self, X):
        """Return how much each column adds to the energy of each row.

        Shapley values against 8 typical training rows (`skebm.explain`): the rows sum
        to ``energy(X) - explain_baseline_``, with ``explain_baseline_`` the mean energy
        of those 8. Costs 16 (n_features + 1) energies a row: explain the rows of
        interest, not the table.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to explain.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_features)
            Contributions in units of the energy; positive = makes the row stranger. A
            DataFrame with X's index and columns if X is a DataFrame.
        """
        check_is_fitted(self)
        rows = self._rows(X)
        contributions = shapley_contributions(
            self._measure,
            row_picker(rows, self._references),
            *rows.shape,
            n_references=len(self._references),
            seed=self._fit_seed,
        )
        if not hasattr(X, "columns"):
            return contributions

        import pandas as pd

        return pd.DataFrame(contributions, index=X.index, columns=X.columns)

    def _set_references(self, rows, energy):
        """Keep a few typical rows, drawn from the lower half of the energies."""
        rng = np.random.default_rng(self._fit_seed)
        lower_half = np.argsort(energy, kind="stable")[: (len(energy) + 1) // 2]
        self._references = take_rows(rows, rng.permutation(lower_half)[:N_REFERENCES])
        self.explain_baseline_ = float(self._measure(self._references).mean())

    def _threshold(self, training_energy):
        """Return the energy above which rows are anomalies."""
        if self.contamination == "auto":
            return calibration.conformal_threshold(self.calibration_energy_)
        return np.percentile(training_energy, 100 * (1 - self.contamination))

    def _set_threshold(self, threshold):
        """Set ``offset_`` so that energies above ``threshold`` are anomalies."""
        self.offset_ = -float(threshold) - (self.log_partition_ or 0.0)

    def __sklearn_is_fitted__(self):
        """Tell whether the last fit came to its end."""
        return hasattr(self, "explain_baseline_")
