"""E = -sum_l (b_l'h_l + h_(l+1)'W_l h_l): the deep Boltzmann machine."""

import math
from numbers import Integral
from os import PathLike

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skebm._check import Interval, StrOptions
from skebm._torch import make_generator, to_numpy
from skebm.energies import DeepBoltzmann
from skebm.estimators.bit_density import BitDensity
from skebm.estimators.boltzmann_training import layer_sizes, trained
from skebm.estimators.rbm_drawing import chains_of, imputed, log_partition_of
from skebm.estimators.rbm_training import stable_rate
from skebm.objectives import DeepBoltzmannLikelihood
from skebm.samplers import draw_missing

N_UPDATES = 10_000
"""Updates of a whole training."""

MOST_EPOCHS = 1000
"""Epochs of a small table, which needs fewer updates."""

LARGEST_RATE = 0.25
"""Beyond it two layers can drive each other's units to 0 or 1."""


class DeepBoltzmannMachine(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BitDensity
):
    """A deep Boltzmann machine: layers of bits that couple to their neighbours.

    E(h_0, ..., h_L) = -sum_l b_l'h_l - sum_l h_(l+1)'W_l h_l with h_0 = v and
    p(v) = sum_h exp(-E) / Z. `energy` and `score_samples` are exact where one half of
    the hidden layers (odd or even) has up to 10 bits. Else they are the mean-field
    bound: ``score_samples`` is then a lower bound on the log-likelihood.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(128, 64)
        Bits of the hidden layers, from below.
    learning_rate : float or "auto", default="auto"
        Rate at the start, > 0; it falls to a hundredth. "auto": half that of
        `BernoulliRBM` for the first hidden layer, at most 0.25.
    batch_size : int, default=100
        Rows per update, >= 1.
    n_iter : int or "auto", default="auto"
        Epochs, >= 1. "auto": 10,000 updates, at most 1,000 epochs.
    verbose : int, default=0
        Whether to print a line after every epoch.
    random_state : int, RandomState or None, default=None
        Seed of weights, chains, batches and draws.
    binarize : float or None, default=None
        Values above are 1, others 0. None: X lies in [0, 1], and values between are
        taken for probabilities of bits.
    objective : {"pcd"} or DeepBoltzmannLikelihood, default="pcd"
        A value sets the chains, the mean field and the penalty.
    normalizer : {"auto", "sum", "annealing"}, Normalizer or None, default="auto"
        "auto": log Z is summed exactly where the odd or the even layers, visible one
        included, have up to 22 bits, and else annealed both ways. None: log Z stays
        unknown and there is no `score`.
    early_stopping : bool, default=False
        Evaluate held-out rows 30 times, keep the best model by their bound and stop
        when 15 evaluations bring no better one.
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
    coefs_ : list of ndarray of shape (n_l, n_(l+1))
        Weights from layer to layer, from below, as in scikit-learn's networks.
    intercepts_ : list of ndarray of shape (n_l,)
        Biases of all layers, the visible one first.
    is_bound_ : bool
        Whether `score_samples` is a lower bound; False where it is exact.
    energy_ : DeepBoltzmann
        The machine as an energy, in double precision, on ``device_``.
    calibration_energy_ : ndarray of shape (n_calibration,)
        Sorted energies of the held-out rows, or of the training rows where none were
        held out: then `calibrate` with fresh rows makes p-values exact.
    history_ : dict of str to ndarray
        One number per epoch.
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
    ConvergenceWarning
        If the training rows are less likely than with independent columns.
    InterruptedFitWarning
        If Ctrl-C ends training: the last whole epoch is kept and ``fit`` finished.
    PartitionWarning
        If the two annealed estimates of log Z disagree.

    Notes
    -----
    All layers learn together, from centred gradients. Sparse X is made dense. Limits:
    the bound is loose where the hidden bits of a row depend on each other; compare it
    with a `BernoulliRBM`, whose likelihood is exact, before trusting depth. The chains
    of `diagnose` draw the even layers, columns first; ``energy_gap`` is NaN.

    References
    ----------
    .. [1] Salakhutdinov, Hinton (2009), Deep Boltzmann machines, AISTATS.
    .. [2] Montavon, Mueller (2012), Deep Boltzmann machines and the centering trick,
       Neural Networks: Tricks of the Trade, Springer.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import DeepBoltzmannMachine
    >>> X = np.array([[0, 0, 1, 1], [1, 1, 0, 0]]).repeat(20, 0)
    >>> machine = DeepBoltzmannMachine((4, 3), n_iter=200, random_state=0).fit(X)
    >>> machine.transform(X).shape
    (40, 3)
    >>> bool(machine.score([[0, 0, 1, 1]]) > machine.score([[0, 1, 0, 1]]))
    True
    """

    _parameter_constraints: dict = {
        **BitDensity._parameter_constraints,
        "checkpoint": [str, PathLike, None],
        "hidden_layer_sizes": [
            "array-like",
            Interval(Integral, 1, None, closed="left"),
        ],
        "objective": [StrOptions({"pcd"}), DeepBoltzmannLikelihood],
    }

    def __init__(
        self,
        hidden_layer_sizes=(128, 64),
        *,
        learning_rate="auto",
        batch_size=100,
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
        self.hidden_layer_sizes = hidden_layer_sizes
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

    def transform(self, X):
        """Return the mean-field means of the top layer.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            In [0, 1], in the floating type of X; one column per bit of the top layer.
        """
        check_is_fitted(self)
        rows, machine = self._rows(X), self.energy_
        means = self._mapped(lambda v: machine.layers(machine.mean_field(v))[-1], rows)
        return means.astype(rows.dtype)

    def impute(self, X, *, random_state=None):
        """Return the rows with each missing entry replaced by its expectation.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; NaN is missing.
        random_state : int, RandomState or None, default=None
            Seed of the draws behind the expectation; None takes the estimator's.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_features)
            Probabilities of bits; observed entries as they are.
        """
        check_is_fitted(self)
        rows = self._encode(X, reset=False, allow_nan=True)
        some = np.isnan(rows).any(1)
        full = rows.copy()
        if some.any():
            hidden = np.full((some.sum(), self._n_above), np.nan)
            wide = np.concatenate([rows[some], hidden], 1)
            guess = imputed(self.energy_.folded(), wide, self._seed(random_state))
            full[some] = guess[:, : rows.shape[1]]
        return self._named(full)

    @property
    def _n_above(self):
        """Bits of the even hidden layers."""
        return sum(self.energy_.sizes[2::2])

    def _run_chains(self, n_draws, seed):
        """Run chains of block Gibbs over the even layers."""
        names = [*self._column_names()]
        names += [f"hidden{j}" for j in range(self._n_above)]
        return chains_of(self.energy_.folded(), n_draws, seed), names, None

    def _train(self, rows, valid):
        """Train all layers together."""
        sizes = layer_sizes(self.hidden_layer_sizes)
        machine, generator = DeepBoltzmann(sizes), make_generator(self._fit_seed)
        machine.build(rows.shape[1], generator=generator).to(self.device_).match(rows)
        objective = self.objective
        if objective == "pcd":
            objective = DeepBoltzmannLikelihood()
        rate, n_epochs = self.learning_rate, self.n_iter
        if rate == "auto":
            generator = make_generator(self._fit_seed, rows.device)
            rate = min(stable_rate(rows, generator, sizes[0]) / 2, LARGEST_RATE)
        if n_epochs == "auto":
            n_updates = math.ceil(len(rows) / self.batch_size)
            n_epochs = min(MOST_EPOCHS, max(1, N_UPDATES // n_updates))
        interrupted = self._keep(
            trained(
                machine,
                objective,
                rows,
                valid,
                self.get_params(False),
                rate=rate,
                n_epochs=n_epochs,
                on_epoch=self._printer(),
                seed=self._fit_seed,
            )
        )
        self.energy_, self._n_features_out = machine, sizes[-1]
        self.coefs_ = [to_numpy(weight.T) for weight in machine.weights]
        self.intercepts_ = [to_numpy(bias) for bias in machine.biases]
        self.is_bound_ = not machine.is_exact
        return interrupted

    def _find_partition(self, rows, generator):
        """Return log Z of the two halves of the layers as an RBM."""
        seed = self._fit_seed
        return log_partition_of(
            self.energy_.folded(), self.normalizer, self._with_above(rows), seed
        )

    def _fill(self, rows, generator):
        """Return rows with missing entries drawn given the others."""
        with torch.no_grad():
            rbm, wide = self.energy_.folded(), self._with_above(rows)
            drawn = draw_missing(rbm, wide, generator=generator)
        return drawn[:, : rows.shape[1]]

    def _with_above(self, rows):
        """Return rows with NaN for the even hidden layers, in double precision."""
        hidden = rows.new_full((len(rows), self._n_above), torch.nan)
        return torch.cat([rows, hidden], 1).double()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
