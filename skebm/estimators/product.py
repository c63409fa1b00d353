"""p(x) = prod_i p_i(x)^w_i / Z: densities multiply, their energies add."""

from numbers import Integral, Real

import numpy as np
from sklearn.callback import with_callbacks
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold
from sklearn.utils import Bunch

from skebm._check import (
    Composition,
    Interval,
    StrOptions,
    meta_fit_context,
    take_rows,
)
from skebm._torch import make_generator
from skebm.estimators.choices import NORMALIZERS, SAMPLERS
from skebm.estimators.density import ScaledDensity
from skebm.estimators.experts import chosen_experts, product
from skebm.estimators.runs import Fit
from skebm.estimators.splits import N_FEWEST, split
from skebm.partition import Normalizer, check_normalizable
from skebm.samplers import Sampler


class ProductOfExperts(Composition, ScaledDensity):
    """Multiply densities: a row is typical if every expert finds it typical.

    p(x) = prod_i p_i(x)^w_i / Z, so E(x) = -sum_i w_i log p_i(x): energies add. The
    experts are fitted densities of skebm or are fitted here; Z is estimated anew. A
    weight w > 1 trusts an expert more, w < 1 less (a temperature of 1 / w), and w < 0
    turns away from what it finds typical.

    Parameters
    ----------
    estimators : list of (str, estimator) tuples
        The experts by name: `DeepEBM` and products of it. They are
        cloned and fitted to X; a fitted one enters in ``FrozenEstimator`` and stays as
        it is. ``set_params(name="drop")`` leaves one out.
    weights : array-like of shape (n_experts,) or None, default=None
        w_i, finite, one for every tuple of ``estimators``, dropped ones included. None
        is 1 each.
    sampler : str or Sampler, default="auto"
        "hmc", "mala", "ula", "random_walk", "tempering", or a value of
        `skebm.samplers`. "auto": rejection sampling from ``base_`` where that keeps
        one row in a thousand, else HMC with independent proposals of it.
    normalizer : str, Normalizer or None, default="auto"
        "importance", "quadrature", "ais", "smc", or a value of `skebm.partition`.
        None: log Z stays unknown and there is no `score`. "auto": closed form where E
        is quadratic, else importance sampling from ``base_``, else SMC.
    cv : int, float or None, default=5
        Which energies calibrate: an integer >= 2 is the number of folds of out-of-fold
        energies, for as many more fits of the experts; a float in (0, 1) is the share
        of rows kept out of the fit; None takes the training rows. Frozen experts saw
        none of X, and below 20 rows none is kept out: then all rows calibrate.
    contamination : "auto" or float, default="auto"
        A float in (0, 0.5] is the share of training rows to flag. "auto" aims at a
        false-alarm rate of 5% on normal rows.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a CUDA device if there is one. The
        experts have their own for their fit.
    random_state : int, RandomState or None, default=None
        Seed of the folds and draws, and of the experts that have none.

    Attributes
    ----------
    estimators_ : list of estimator
        The fitted experts, without dropped ones.
    named_estimators_ : Bunch
        The fitted experts by name; "drop" for dropped ones.
    energy_ : Energy
        Energy of scaled rows, on ``device_``, in double precision; it has copies of
        the experts' energies.
    base_ : Gaussians
        A normalised density near that of the scaled rows: the product of the experts'
        bases.
    sampler_ : Sampler
        What `diagnose` runs, and `sample` where it does not draw exactly.
    log_partition_ : float or None
        log Z of the product of the experts' densities of scaled rows, plus the sum of
        log s that brings densities to the units of X; None if ``normalizer`` is None.
    log_partition_interval_ : tuple of float or None
        95% interval of ``log_partition_``.
    log_partition_ess_ : float or None
        Effective sample size behind it; infinite where exact.
    calibration_energy_ : ndarray of shape (n_calibration,)
        Sorted energies behind threshold and p-values; see ``cv``.
    offset_ : float
        ``decision_function(X) = score_samples(X) - offset_``.
    explain_baseline_ : float
        Mean energy of the reference rows; see `explain`.
    location_, scale_ : ndarray of shape (n_features_in_,)
        Mean and standard deviation of the columns; a constant column has its own size.
    device_ : str
        Where the energy lives.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if X was a DataFrame with string names.

    Raises
    ------
    ValueError
        If an expert is no density of skebm, a frozen one was fitted to other columns,
        or ``weights`` do not fit.
    NotNormalizableError
        If exp(-E) has no finite integral, for instance where an expert of negative
        weight is as narrow as the others together.

    Notes
    -----
    The energy is one of scaled rows z, E = -sum_i w_i log p_i(z), with log Z of an
    expert counted as 0 where it is unknown. For weights that sum to one,
    ``log_partition_ - log(scale_).sum()`` is at most 0, and 0 where the experts agree;
    for weights of 1/2 it is minus their Bhattacharyya distance.

    Cost: the fits of the experts, ``cv`` + 1 times, and up to 400,000 energies of each
    for log Z. Limits: experts that hardly overlap leave log Z uncertain; see
    ``log_partition_interval_`` and `diagnose`. A frozen expert that was trained on rows
    of X makes training rows look typical; `calibrate` with fresh ones. Weighted rows
    enter through experts that were fitted with them and frozen.

    References
    ----------
    .. [1] Hinton (2002), Training products of experts by minimizing contrastive
       divergence, Neural Computation 14(8).
    .. [2] Du, Li, Mordatch (2020), Compositional visual generation with energy based
       models, NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.frozen import FrozenEstimator
    >>> from skebm import DeepEBM, ProductOfExperts
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> expert = FrozenEstimator(DeepEBM(max_iter=2, random_state=0).fit(X))
    >>> twice = ProductOfExperts([("a", expert), ("b", expert)], random_state=0).fit(X)
    >>> 0.6 < float(twice.sample(1000).std()) < 0.8  # sqrt(1 / 2)
    True
    """

    _parameter_constraints: dict = {
        **ScaledDensity._parameter_constraints,
        "estimators": [list],
        "weights": ["array-like", None],
        "sampler": [StrOptions({"auto", *SAMPLERS}), Sampler],
        "normalizer": [StrOptions({"auto", *NORMALIZERS}), Normalizer, None],
        "cv": [
            Interval(Integral, 2, None, closed="left"),
            Interval(Real, 0, 1, closed="neither"),
            None,
        ],
    }

    def __init__(
        self,
        estimators,
        *,
        weights=None,
        sampler="auto",
        normalizer="auto",
        cv=5,
        contamination="auto",
        device="auto",
        random_state=None,
    ):
        self.estimators = estimators
        self.weights = weights
        self.sampler = sampler
        self.normalizer = normalizer
        self.cv = cv
        self.contamination = contamination
        self.device = device
        self.random_state = random_state

    def get_params(self, deep=True):
        """Return the parameters by name.

        Parameters
        ----------
        deep : bool, default=True
            Add the experts by name, and their parameters as ``name__inner``.

        Returns
        -------
        dict
            Name to value.
        """
        return self._get_params("estimators", deep=deep)

    def set_params(self, **params):
        """Set parameters, experts, or parameters of experts.

        Parameters
        ----------
        **params : dict
            Name to new value: ``weights=[2, 1]``, ``a=DeepEBM()``, ``a="drop"``,
            ``a__max_iter=5``.

        Returns
        -------
        self : ProductOfExperts
            The same estimator.
        """
        self._set_params("estimators", **params)
        return self

    @with_callbacks
    @meta_fit_context
    def fit(self, X, y=None):
        """Fit the experts, estimate log Z of their product, and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, at least two; finite numbers.
        y : Ignored
            For scikit-learn's signature.

        Returns
        -------
        self : ProductOfExperts
            The fitted estimator.
        """
        table = self._begin(X)
        x = table.rows
        rows = self._named(x)
        experts = chosen_experts(self.estimators, self.weights, rows)
        self._validate_names([name for name, _ in self.estimators])
        folds, train, held_out = self._plan(len(x), experts)
        self._begin_tasks(len(experts) * (len(folds) + 1) + 2)
        log_density = np.empty(len(x)) if folds else None
        for seen, unseen in folds:
            self._normalize(self._product(experts, take_rows(rows, seen)))
            log_density[unseen] = self._log_density(x[unseen])
        fit = self._product(experts, take_rows(rows, train))
        fit = fit._replace(held_out=held_out, log_density=log_density)
        self._normalize(fit)
        self._end_task("normalizer")
        self._finish(table, fit)
        self._end_task("calibration")
        return self._end_tasks()

    def _plan(self, n, experts):
        """Return the folds (list), and places of rows to fit to and to calibrate on."""
        every = np.arange(n)
        frozen = all(isinstance(e.estimator, FrozenEstimator) for e in experts)
        if self.cv is None or frozen or n < N_FEWEST:
            return [], every, every
        if not isinstance(self.cv, Integral):
            return [], *split(n, self.cv, self._fit_seed)
        splitter = KFold(min(self.cv, n), shuffle=True, random_state=self._fit_seed)
        return list(splitter.split(every)), every, every

    def _product(self, experts, rows):
        """Fit the experts to rows; return their product as a `Fit`."""
        self.estimators_ = []
        for expert in experts:
            self.estimators_.append(expert.fitted(rows, self._fit_seed))
            self._end_task(expert.name)
        fitted = dict(zip((e.name for e in experts), self.estimators_, strict=True))
        self.named_estimators_ = Bunch(
            **{name: fitted.get(name, "drop") for name, _ in self.estimators}
        )
        weights = [expert.weight for expert in experts]
        energy, base = product(self.estimators_, weights, self.location_, self.scale_)
        energy, base = energy.to(self.device_), base.to(self.device_)
        if self.normalizer is None:
            generator = make_generator(self._fit_seed, self.device_)
            check_normalizable(energy, rows.shape[1], generator=generator)
        return Fit(energy, base, np.arange(len(rows)), None, {}, 0)

    def _log_density(self, x):
        """Return the log-density of scaled rows under the present energy, (n,)."""
        return -self._measure(x) - self._scaled_log_partition
