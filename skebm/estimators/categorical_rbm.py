"""E(v) = -b'phi(v) - sum_j log(1 + exp(c_j + W_j phi(v))), phi(v) one-hot codes."""

from skebm.estimators.kinds import LevelColumn
from skebm.estimators.rbm_kinds import KindRBM


class CategoricalRBM(KindRBM):
    """A restricted Boltzmann machine of categories, with its normaliser.

    E(v) = -sum_i b_(i, v_i) - sum_j log(1 + exp(c_j + sum_i W_(j, i, v_i))): every
    column is one softmax unit [1]_, and hidden bits are summed out. `score_samples` is
    the log-probability of a row.

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
    handle_unknown : {"error", "missing"}, default="error"
        What to do with a category that ``fit`` did not see: raise, or take it for
        missing.

    Attributes
    ----------
    categories_ : list of ndarray
        Categories of every column, in the order of their codes: sorted, or as a
        DataFrame's categorical type has them.
    components_ : ndarray of shape (n_components, n_statistics)
        W, one column per category.
    intercept_hidden_ : ndarray of shape (n_components,)
        c.
    intercept_visible_ : ndarray of shape (n_statistics,)
        b.
    h_samples_ : ndarray of shape (n_chains, n_components)
        Hidden bits of draws of the model.
    energy_ : RBM
        The machine as an energy of codes, in double precision, on ``device_``.
    calibration_energy_ : ndarray of shape (n_calibration,)
        Sorted energies of the held-out rows, or of the training rows where none were
        held out: then `calibrate` with fresh rows makes p-values exact.
    history_ : dict of str to ndarray
        One number per epoch: "loss" (mean negative log-likelihood of the rows;
        with chains the energy gap), "reconstruction_error", and "valid_loss" per look.
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
        If X holds a category that ``fit`` did not see and ``handle_unknown="error"``.
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
    X is an array of integers or strings, or a DataFrame; as in `OrdinalEncoder` every
    distinct value is a category. `sample`, `impute`, `reconstruct` and `gibbs` return
    them in their types. None and NaN are missing: drawn while training, summed out by
    `score_samples` (exactly up to 16 hidden bits, else annealed), and filled with the
    likeliest category by `impute`. Limits: the order of categories is unknown to the
    model; numbers that hardly repeat need `MixedRBM` or `KBinsDiscretizer`.

    References
    ----------
    .. [1] Salakhutdinov, Mnih, Hinton (2007), Restricted Boltzmann machines for
       collaborative filtering, ICML.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import CategoricalRBM
    >>> X = np.array([["red", "round"], ["blue", "flat"], ["green", "flat"]] * 20)
    >>> rbm = CategoricalRBM(n_components=2, random_state=0).fit(X)
    >>> rbm.impute([["red", None], [None, "round"]]).tolist()
    [['red', 'round'], ['red', 'round']]
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
        handle_unknown="error",
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
        self.handle_unknown = handle_unknown

    def _learn(self, cells):
        """Return the columns with their categories."""
        return [LevelColumn(column, "categorical") for column in cells]
