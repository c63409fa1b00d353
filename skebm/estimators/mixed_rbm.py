"""E(v) = A(v) - b'phi(v) - sum_j log(1 + exp(c_j + W_j phi(v))), phi by column."""

import numpy as np

from skebm._check import StrOptions
from skebm.estimators.kinds import KINDS, LevelColumn, RealColumn, usual_kind
from skebm.estimators.rbm_kinds import KindRBM
from skebm.estimators.scaling import place_of


class MixedRBM(KindRBM):
    """A restricted Boltzmann machine of binary, categorical and real columns.

    E(v) = A(v) - b'phi(v) - sum_j log(1 + exp(c_j + W_j phi(v))) [1]_: bits have A = 0
    and phi(v) = v, categories one-hot phi, real columns (scaled to mean 0 and standard
    deviation 1) A = v^2 / (2 s^2) and phi(v) = v / s^2 with learned variances s^2.
    Given the hidden bits all columns are independent. `score_samples` is a log-density
    over the real columns, in their units, times a probability of the others.

    Parameters
    ----------
    n_components : int, default=10
        Hidden bits, >= 1.
    kinds : "auto", {"binary", "categorical", "real"} or dict, default="auto"
        What the columns hold, for all columns or by name or place. "auto", and columns
        that a dict leaves out: booleans and two values that repeat are binary, text,
        categories and up to 10 distinct integers are categorical, other numbers real.
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
        else annealed both ways. None: log Z stays unknown and there is no `score`.
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
        What to do with a value of a binary or categorical column that ``fit`` did not
        see: raise, or take it for missing.

    Attributes
    ----------
    kinds_ : list of str
        Kind of every column.
    categories_ : list of ndarray or None
        Categories of every column, in the order of their codes; None if it is real.
    location_, scale_ : ndarray of shape (n_features_in_,)
        Mean and standard deviation of the real columns; 0 and 1 for the others.
    components_ : ndarray of shape (n_components, n_statistics)
        W: one column per bit, per category and per real column.
    intercept_hidden_ : ndarray of shape (n_components,)
        c.
    intercept_visible_ : ndarray of shape (n_statistics,)
        b.
    h_samples_ : ndarray of shape (n_chains, n_components)
        Hidden bits of draws of the model.
    energy_ : RBM
        The machine as an energy of bits, codes and scaled numbers, in double precision,
        on ``device_``.
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
        If a column does not hold what ``kinds`` says, or an unknown category.
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
    X is a DataFrame or an array; `sample`, `impute`, `reconstruct` and `gibbs` return
    the same, bits and categories in the types of ``fit``, real columns in float64. None
    and NaN are missing: drawn while training, summed out by `score_samples` (exactly up
    to 16 hidden bits, else annealed), and filled by `impute` with means of numbers and
    the likeliest values of the others. A density is no bound on a probability: a real
    column weighs as much as its scale says. Limits: as `GaussianRBM` for real columns
    that depend on each other linearly; dates must be made numbers first.

    References
    ----------
    .. [1] Welling, Rosen-Zvi, Hinton (2004), Exponential family harmoniums with an
       application to information retrieval, NeurIPS.

    Examples
    --------
    >>> import pandas as pd
    >>> from skebm import MixedRBM
    >>> X = pd.DataFrame({"wings": [True, False] * 30, "kind": ["bird", "fish"] * 30})
    >>> X["weight"] = range(60)
    >>> rbm = MixedRBM(n_components=2, random_state=0).fit(X)
    >>> rbm.kinds_
    ['binary', 'binary', 'real']
    >>> rbm.sample(1, given={"wings": True})["kind"].item()
    'bird'
    """

    _parameter_constraints: dict = {
        **KindRBM._parameter_constraints,
        "kinds": [StrOptions({"auto", *KINDS}), dict],
    }

    def __init__(
        self,
        n_components=10,
        *,
        kinds="auto",
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
        self.kinds = kinds
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

    @property
    def kinds_(self):
        """Kind of every column.

        Returns
        -------
        object
            Kind of every column.
        """
        return [column.kind for column in self._columns]

    @property
    def location_(self):
        """Mean of the real columns, 0 for the others, shape (n_features_in_,).

        Returns
        -------
        object
            Mean of the real columns, 0 for the others, shape (n_features_in_,).
        """
        return np.array([column.location for column in self._columns])

    @property
    def scale_(self):
        """Standard deviation of the real columns, 1 for the others.

        Returns
        -------
        object
            Standard deviation of the real columns, 1 for the others.
        """
        return np.array([column.scale for column in self._columns])

    def _learn(self, cells):
        """Return the columns, each of its kind."""
        kinds = self._chosen_kinds(cells)
        return [
            RealColumn(c) if kind == "real" else LevelColumn(c, kind)
            for c, kind in zip(cells, kinds, strict=True)
        ]

    def _rescaled(self, rows):
        """Return counted rows with real columns scaled to mean 0 and deviation 1."""
        parts = [
            column.rescaled(part) if isinstance(column, RealColumn) else part
            for column, part in zip(self._columns, rows.T, strict=True)
        ]
        return np.stack(parts, axis=1)

    def _chosen_kinds(self, cells):
        """Return the kind of every column."""
        if isinstance(self.kinds, str):
            if self.kinds != "auto":
                return [self.kinds] * len(cells)
            return [usual_kind(c) for c in cells]
        forced = {}
        for key, kind in self.kinds.items():
            if kind not in KINDS:
                raise ValueError(
                    f"Got kind {kind!r} for column {key!r}, but expected one of "
                    f"{KINDS}."
                )
            names = getattr(self, "feature_names_in_", None)
            forced[place_of(key, names, len(cells))] = kind
        return [forced.get(j) or usual_kind(c) for j, c in enumerate(cells)]
