"""p(x) = exp(-E(x)) / Z with any energy, objective and sampler."""

import warnings
from numbers import Integral, Real
from os import PathLike

import numpy as np
import torch
from sklearn.callback import with_callbacks
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from skebm._check import Interval, StrOptions, fit_context
from skebm.energies import Energy
from skebm.estimators.choices import (
    ENERGIES,
    NORMALIZERS,
    OBJECTIVES,
    SAMPLERS,
    resolve,
)
from skebm.estimators.density import ScaledDensity
from skebm.estimators.parameter import EnergyParameter
from skebm.estimators.recipes import train
from skebm.estimators.runs import Runs
from skebm.estimators.scaling import scaled
from skebm.exceptions import InterruptedFitWarning
from skebm.objectives import Objective
from skebm.partition import Normalizer
from skebm.samplers import Sampler


class DeepEBM(EnergyParameter, ScaledDensity):
    """A density estimator from any energy, with its normaliser and a threshold.

    p(x) = exp(-E(x)) / Z. Columns are scaled to mean 0 and standard deviation 1; E is
    a function of the scaled row. By default a network f tilts a mixture of Gaussians b,
    E(x) = -log b(x) + f(x): b is chosen and f trained by noise-contrastive estimation
    against b, both by held-out likelihood, and log Z is estimated with an interval.

    Parameters
    ----------
    energy : {"auto", "mlp", "residual", "transformer", "denoiser", "quadratic"} or \
            Energy, default="auto"
        A value of `skebm.energies` gives control. "auto": 128-128-128 ReLU units from
        2,000 rows on, the mean of three networks of 64-64 SiLU units below, and "mlp"
        where an ``objective`` is given.
    objective : str or Objective, default="auto"
        How E is trained without Z: "nce" (what "auto" means), "ranking_nce", "cd",
        "pcd", "ml", "sm", "ssm", "dsm", "multi_dsm", "adversarial", "margin", or a
        value of `skebm.objectives`.
    sampler : str or Sampler, default="auto"
        "hmc", "mala", "ula", "random_walk", "tempering", or a value of
        `skebm.samplers`. "auto": exact rejection sampling from the base where that
        keeps one row in a thousand, else HMC with independent proposals of the base.
    normalizer : str, Normalizer or None, default="auto"
        "importance", "quadrature", "ais", "smc", or a value of `skebm.partition`.
        None: log Z stays unknown and there is no `score`. "auto": closed form, else
        importance sampling from the base, else quadrature in 1-D and 2-D, else SMC.
    base : {"auto", "gaussian"}, mixture or None, default="auto"
        What E tilts: a GaussianMixture is fitted to the scaled rows, one in
        ``FrozenEstimator`` is taken as it is; None: E stands alone.
        "auto": a mixture chosen by held-out likelihood, and for a given ``energy``
        None if that confines itself (`skebm.partition.check_normalizable`).
    max_iter : int or "auto", default="auto"
        Epochs of every training run, >= 1. Tables of less than 8,192 rows are repeated
        to as many. "auto": 1,500 to 6,000 steps.
    batch_size : int, default=256
        Rows per step, >= 1.
    learning_rate : float or "auto", default="auto"
        Largest rate of AdamW, > 0; "auto" is 4e-3, or 2e-3 below 2,000 rows.
    early_stopping : bool, default=False
        Stop a run when the held-out loss has not fallen for 10 epochs.
    validation_fraction : float, default=0.1
        Share of the rows, in (0, 1), that picks epoch and model and calibrates; below
        2,000 rows the defaults use five-fold cross-validation in its place.
    checkpoint : str, path or None, default=None
        File to write to during training, with the number of the run added. A fit with
        the same data and parameters goes on from it, to the same bits.
    contamination : "auto" or float, default="auto"
        A float in (0, 0.5] is the share of training rows to flag. "auto" aims at a
        false-alarm rate of 5% on normal rows.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a CUDA device if there is one.
    random_state : int, RandomState or None, default=None
        Seed of the splits, weights, batches and draws.

    Attributes
    ----------
    energy_ : Energy
        Fitted energy of scaled rows, on ``device_``, in double precision.
    base_ : Gaussians
        A normalised density near the scaled rows.
    sampler_ : Sampler
        What `diagnose` runs, and `sample` where it does not draw exactly.
    log_partition_ : float or None
        log Z in the units of X, nats; None if ``normalizer`` is None.
    log_partition_interval_ : tuple of float or None
        95% interval of ``log_partition_``.
    log_partition_ess_ : float or None
        Effective sample size behind it; infinite where exact.
    calibration_energy_ : ndarray of shape (n_calibration,)
        Sorted energies of rows under models that did not see them: held out, or out
        of fold. Training rows where nothing was held out.
    history_ : dict of str to ndarray
        One number per epoch of the kept run: "loss", "valid_loss", ...
    n_iter_ : int
        Epochs of the kept run.
    offset_ : float
        ``decision_function(X) = score_samples(X) - offset_``.
    explain_baseline_ : float
        Mean energy of the reference rows; see `explain`.
    location_, scale_ : ndarray of shape (n_features_in_,)
        Mean and standard deviation of the columns; a constant column has its own size,
        and columns in one unit, such as pixels, share one.
    device_ : str
        Where the energy lives.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if X was a DataFrame with string names.

    Raises
    ------
    ValueError
        If X holds NaN or fewer than two rows.
    DivergenceError
        If training diverges twice; the learning rate is halved in between.
    NotNormalizableError
        If exp(-E) of the trained energy has no finite integral.

    Warns
    -----
    InterruptedFitWarning
        If Ctrl-C ends training: the last whole epoch is kept and ``fit`` finished.
    PartitionWarning
        If the estimate of log Z rests on few effective draws.

    Notes
    -----
    About 20 to 40 s on one core for 10,000 rows, and 5 to 30 s for hundreds. Limits:
    densities in more than some 50 columns, and tables with columns of few distinct
    values, whose density is infinite there; components are at least 0.05 standard
    deviations wide.

    References
    ----------
    .. [1] Gutmann, Hyvarinen (2010), Noise-contrastive estimation: a new estimation
       principle for unnormalized statistical models, AISTATS.
    .. [2] Du, Mordatch (2019), Implicit generation and modeling with energy-based
       models, NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import DeepEBM
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> model = DeepEBM(max_iter=2, random_state=0).fit(X)
    >>> -3.2 < model.score(X) < -2.6  # the entropy of the normal is 2.84
    True
    """

    _parameter_constraints: dict = {
        **ScaledDensity._parameter_constraints,
        "energy": [StrOptions({"auto", *ENERGIES}), Energy],
        "objective": [StrOptions({"auto", *OBJECTIVES}), Objective],
        "sampler": [StrOptions({"auto", *SAMPLERS}), Sampler],
        "normalizer": [StrOptions({"auto", *NORMALIZERS}), Normalizer, None],
        "base": [
            StrOptions({"auto", "gaussian"}),
            GaussianMixture,
            FrozenEstimator,
            None,
        ],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
        ],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "checkpoint": [str, PathLike, None],
    }

    def __init__(
        self,
        energy="auto",
        *,
        objective="auto",
        sampler="auto",
        normalizer="auto",
        base="auto",
        max_iter="auto",
        batch_size=256,
        learning_rate="auto",
        early_stopping=False,
        validation_fraction=0.1,
        checkpoint=None,
        contamination="auto",
        device="auto",
        random_state=None,
    ):
        self.energy = energy
        self.objective = objective
        self.sampler = sampler
        self.normalizer = normalizer
        self.base = base
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.checkpoint = checkpoint
        self.contamination = contamination
        self.device = device
        self.random_state = random_state

    @with_callbacks
    @fit_context
    def fit(self, X, y=None, sample_weight=None):
        """Train the energy, estimate log Z, and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, at least two; finite numbers.
        y : Ignored
            For scikit-learn's signature.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            How often each row counts, >= 0; None is once. Whole numbers are the row as
            often; of others only the ratios matter.

        Returns
        -------
        self : DeepEBM
            The fitted estimator.
        """
        table = self._begin(X, sample_weight)
        self._begin_tasks(3)
        fit = self._train(table)
        self._end_task("training")
        self._normalize(fit)
        self._end_task("normalizer")
        self._finish(table, fit)
        self._end_task("calibration")
        return self._end_tasks()

    def _train(self, table):
        """Return the trained energy of the rows and how it was trained."""
        runs = Runs(self.get_params(False), torch.device(self.device_), self._fit_seed)
        fit = train(
            table._replace(rows=scaled(table.rows, self.location_, self.scale_)),
            None if self._energy == "auto" else resolve(self._energy, ENERGIES),
            None if self.objective == "auto" else resolve(self.objective, OBJECTIVES),
            self.base,
            runs,
            self.validation_fraction,
        )
        self.n_iter_ = fit.n_iter
        self.history_ = {k: np.asarray(v) for k, v in fit.history.items()}
        if runs.interrupted:
            warnings.warn(
                f"fit was interrupted: the energy is that of epoch {fit.n_iter}. Fit "
                "again for the whole training, or lower max_iter.",
                InterruptedFitWarning,
                stacklevel=5,
            )
        return fit
