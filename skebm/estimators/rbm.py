"""E(v) = -b'v - sum_j log(1 + exp(c_j + W_j v)): the RBM of bits."""

from numbers import Real

import torch
from sklearn.utils.validation import check_is_fitted

from skebm._check import Interval, check_bits, check_units
from skebm._torch import in_chunks, to_numpy
from skebm.energies import BernoulliUnits
from skebm.estimators.rbm_density import RBMDensity
from skebm.estimators.rbm_readers import CHUNK
from skebm.partition.pseudo import pseudo_log_likelihood

N_PRINTED = 1000
"""Training rows whose pseudo-likelihood ``verbose`` prints."""


class BernoulliRBM(RBMDensity):
    """A restricted Boltzmann machine of bits, with its normaliser and a threshold.

    E(v) = -b'v - sum_j log(1 + exp(c_j + W_j v)), p(v) = exp(-E(v)) / Z: hidden bits h
    with E(v, h) = -b'v - c'h - h'W v, summed out. Constructor names and fitted
    attributes are those of scikit-learn's class, so changing the import is enough;
    `score_samples` is the exact log-likelihood instead of a random proxy, which
    `pseudo_log_likelihood` replaces.

    Parameters
    ----------
    n_components : int, default=256
        Hidden bits, >= 1.
    learning_rate : float or "auto", default="auto"
        A number > 0 is the rate throughout, as in scikit-learn. "auto" starts at
        2.5 / (1 + sqrt(n_components k) / 64) / max(1, l), with k the units of the
        smaller layer and l the largest eigenvalue of the covariance of the columns,
        and falls to a hundredth.
    batch_size : int, default=50
        Rows per update, >= 1.
    n_iter : int or "auto", default="auto"
        Epochs, >= 0. "auto": 30,000 updates, at most 2,000 epochs.
    verbose : int, default=0
        Whether to print a line after every epoch.
    random_state : int, RandomState or None, default=None
        Seed of weights, chains, batches and draws.
    binarize : float or None, default=None
        Values above are 1, others 0. None: X lies in [0, 1], and values between are
        taken for probabilities of bits.
    objective : {"pcd", "cd", "tempered"} or RBMLikelihood, default="pcd"
        How the chains of the gradient run; a value sets their number and steps, the
        penalties and the precision.
    normalizer : {"auto", "sum", "annealing"}, Normalizer or None, default="auto"
        "auto": log Z is summed exactly where the smaller layer has up to 22 bits, and
        else annealed both ways. "sum" goes to 30 bits, each of which doubles its time.
        None: log Z stays unknown and there is no `score`.
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
    components_ : ndarray of shape (n_components, n_features_in_)
        W.
    intercept_hidden_ : ndarray of shape (n_components,)
        c.
    intercept_visible_ : ndarray of shape (n_features_in_,)
        b.
    h_samples_ : ndarray of shape (n_chains, n_components)
        Hidden bits of the chains.
    energy_ : RBM
        The machine as an energy, in double precision, on ``device_``.
    calibration_energy_ : ndarray of shape (n_calibration,)
        Sorted energies of the held-out rows, or of the training rows where none were
        held out: then `calibrate` with fresh rows makes p-values exact.
    history_ : dict of str to ndarray
        One number per epoch: "reconstruction_error", "loss" (the energy gap between
        rows and chains), and "valid_loss" per look at held-out rows.
    n_iter_ : int
        Epochs run.
    log_partition_, log_partition_interval_, log_partition_ess_ : float, tuple, float
        log Z in nats, its 95% interval, its effective sample size.
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
        If X is not in [0, 1] and ``binarize`` is None.
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
    `score_samples` (exactly up to 16 hidden bits, else annealed at about 0.05 s a row)
    and filled by `impute`. Sparse X is made dense. Limits: images and other columns
    that are not bits at heart need `GaussianRBM` or features; chains that stop mixing
    bias the gradient, which ``objective="tempered"`` mends at twice the cost.

    References
    ----------
    .. [1] Hinton (2002), Training products of experts by minimizing contrastive
       divergence, Neural Computation 14(8).
    .. [2] Tieleman (2008), Training restricted Boltzmann machines using approximations
       to the likelihood gradient, ICML.
    .. [3] Melchior, Fischer, Wiskott (2016), How to center deep Boltzmann machines,
       Journal of Machine Learning Research 17(99).

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import BernoulliRBM
    >>> X = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    >>> rbm = BernoulliRBM(n_components=4, random_state=0).fit(X)
    >>> rbm.transform(X).shape
    (4, 4)
    >>> bool(rbm.score([[0, 1, 1]]) > rbm.score([[1, 1, 1]]))
    True
    """

    _parameter_constraints: dict = {
        **RBMDensity._parameter_constraints,
        "binarize": [Interval(Real, None, None, closed="neither"), None],
    }

    def __init__(
        self,
        n_components=256,
        *,
        learning_rate="auto",
        batch_size=50,
        n_iter="auto",
        verbose=0,
        random_state=None,
        binarize=None,
        objective="pcd",
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
        self.verbose = verbose
        self.random_state = random_state
        self.binarize = binarize
        self.objective = objective
        self.normalizer = normalizer
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.checkpoint = checkpoint
        self.contamination = contamination
        self.device = device

    def pseudo_log_likelihood(self, X):
        """Return sum_i log p(v_i | the other columns), exact and without log Z.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Complete rows. A value v_i between 0 and 1 counts as v_i of a one and
            1 - v_i of a zero.

        Returns
        -------
        ndarray of shape (n_samples,)
            In nats.
        """
        check_is_fitted(self)
        rows = check_units(self, X, reset=False, allow_nan=False)
        x = torch.from_numpy(check_bits(self, rows)).to(self.device_, torch.float64)
        with torch.inference_mode():
            found = in_chunks(
                lambda v: (pseudo_log_likelihood(self.energy_, v),), CHUNK, x
            )
        return to_numpy(found[0])

    def _progress(self, rbm, rows, record):
        """Return the mean pseudo-log-likelihood of some complete training rows."""
        complete = rows[~rows.isnan().any(1)][:N_PRINTED]
        if not len(complete):
            return super()._progress(rbm, rows, record)
        with torch.no_grad():
            found = float(pseudo_log_likelihood(rbm, complete).mean())
        return f"pseudo-likelihood = {found:.2f}"

    def _units(self, rows):
        """Return bits."""
        return BernoulliUnits()

    def _encode(self, X, *, reset):
        """Return X as values in [0, 1], shape (n, d), NaN where missing."""
        return check_bits(self, check_units(self, X, reset=reset))
