"""E(v) = (v^2 / 2 - b v) / s^2 - sum_j log(1 + exp(c_j + W_j (v / s^2))): numbers."""

import numpy as np

from skebm._check import check_units
from skebm._torch import to_numpy
from skebm.energies import GaussianUnits
from skebm.estimators.kinds import LEAST_VARIANCE
from skebm.estimators.rbm_tables import TableRBM
from skebm.estimators.scaling import (
    column_location_and_scale,
    scaled,
    warn_of_denormals,
)


class GaussianRBM(TableRBM):
    """A restricted Boltzmann machine of real columns, normalised in the units of X.

    E(v, h) = sum_i (v_i^2 / 2 - b_i v_i) / s_i^2 - c'h - h'W (v / s^2) for columns v
    scaled to mean 0 and standard deviation 1; hidden bits h are summed out. Given h the
    columns are independent and normal with means b + W'h and variances s^2, which are
    learned: a mixture of 2^n_components Gaussians with one diagonal covariance.

    Parameters
    ----------
    n_components : int, default=10
        Hidden bits, >= 1.
    learning_rate : float or "auto", default="auto"
        Rate of AdamW at the start, > 0; it falls to a hundredth. "auto": 0.1 with the
        exact gradient, 0.01 with chains.
    batch_size : int, default=100
        Rows per update, >= 1.
    n_iter : int or "auto", default="auto"
        Epochs, >= 0. "auto": 5,000 updates with the exact gradient, 20,000 with chains,
        at most 2,000 epochs.
    random_state : int, RandomState or None, default=None
        Seed of weights, chains, batches and draws.
    objective : {"auto", "exact", "pcd", "cd", "tempered"} or value, default="auto"
        "exact" lists the hidden states (`ExactLikelihood`, up to 16 bits), the others
        run chains (`RBMLikelihood`). "auto": exact up to 10 hidden bits, else "pcd".
    normalizer : {"auto", "sum", "annealing"}, Normalizer or None, default="auto"
        "auto": log Z is summed exactly up to 22 hidden bits, and else annealed both
        ways. None: log Z stays unknown and there is no `score`.
    early_stopping : bool, default=False
        Evaluate held-out rows 30 times, keep the best model by their log-likelihood
        and stop when 15 evaluations bring no better one.
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

    Attributes
    ----------
    location_, scale_ : ndarray of shape (n_features_in_,)
        Mean and standard deviation of the columns, missing entries left out.
    residual_scale_ : ndarray of shape (n_features_in_,)
        Standard deviation of each column given the hidden bits, in the units of X.
    components_ : ndarray of shape (n_components, n_features_in_)
        W: how far each hidden bit moves the scaled columns.
    intercept_hidden_ : ndarray of shape (n_components,)
        c.
    intercept_visible_ : ndarray of shape (n_features_in_,)
        b.
    h_samples_ : ndarray of shape (n_chains, n_components)
        Hidden bits of draws of the model.
    energy_ : RBM
        The machine as an energy of scaled rows, in double precision, on ``device_``.
    calibration_energy_ : ndarray of shape (n_calibration,)
        Sorted energies of the held-out rows, or of the training rows where none were
        held out: then `calibrate` with fresh rows makes p-values exact.
    history_ : dict of str to ndarray
        One number per epoch: "loss" (mean negative log-likelihood of the scaled rows;
        with chains the energy gap), "reconstruction_error", and "valid_loss" per look.
    n_iter_ : int
        Epochs run.
    log_partition_, log_partition_interval_, log_partition_ess_ : float, tuple, float
        log Z in nats and in the units of X, its 95% interval, its effective sample
        size.
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
    DivergenceError
        If training diverges twice; the learning rate is halved in between.

    Warns
    -----
    InterruptedFitWarning
        If Ctrl-C ends training: the last whole epoch is kept and ``fit`` finished.
    PartitionWarning
        If the two annealed estimates of log Z disagree.

    Notes
    -----
    NaN entries are missing: they are drawn while training, summed out by
    `score_samples` (exactly up to 16 hidden bits, else annealed) and filled by
    `impute`. A variance given the hidden bits is at least 0.001 of the column's.
    Limits: columns that depend on each other linearly and strongly need many hidden
    bits, where a full covariance matrix needs none; see `DeepEBM`. Columns of few
    values are better told apart by `MixedRBM`.

    References
    ----------
    .. [1] Welling, Rosen-Zvi, Hinton (2004), Exponential family harmoniums with an
       application to information retrieval, NeurIPS.
    .. [2] Cho, Ilin, Raiko (2011), Improved learning of Gaussian-Bernoulli restricted
       Boltzmann machines, ICANN.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import GaussianRBM
    >>> X = np.random.default_rng(0).normal([[0, 5]] * 50 + [[9, 0]] * 50)
    >>> rbm = GaussianRBM(n_components=2, random_state=0).fit(X)
    >>> near, between = rbm.score_samples([[9, 0], [5, 2]])
    >>> bool(near > between + 3)
    True
    """

    def __init__(
        self,
        n_components=10,
        *,
        learning_rate="auto",
        batch_size=100,
        n_iter="auto",
        random_state=None,
        objective="auto",
        normalizer="auto",
        early_stopping=False,
        validation_fraction=0.1,
        checkpoint=None,
        contamination="auto",
        device="auto",
    ):
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.random_state = random_state
        self.objective = objective
        self.normalizer = normalizer
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.checkpoint = checkpoint
        self.contamination = contamination
        self.device = device

    @property
    def residual_scale_(self):
        """Standard deviation of each column given the hidden bits, in units of X.

        Returns
        -------
        object
            Standard deviation of each column given the hidden bits, in units of X.
        """
        return to_numpy(self.energy_.layer.variance.sqrt()) * self.scale_

    def _units(self, rows):
        """Return real numbers."""
        return GaussianUnits(LEAST_VARIANCE)

    def _encode(self, X, *, reset):
        """Return X scaled, shape (n, d), float64, NaN where missing."""
        rows = check_units(self, X, reset=reset)
        if reset:
            self.location_, self.scale_ = column_location_and_scale(rows)
            warn_of_denormals(rows, np.arange(rows.shape[1]))
        return scaled(rows, self.location_, self.scale_)

    def _rescaled(self, rows):
        """Return counted rows scaled to mean 0 and standard deviation 1."""
        location, scale = column_location_and_scale(rows)
        self.location_ = self.location_ + location * self.scale_
        self.scale_ = self.scale_ * scale
        return scaled(rows, location, scale)

    def _decode(self, rows):
        """Return scaled rows in the units of X."""
        return self._named(rows * self.scale_ + self.location_)

    def _log_scales(self):
        """Return the log of every column's scale, shape (n_features,)."""
        return np.log(self.scale_)
