"""E(s) = -s'Ls/2 - a's over visible and hidden bits: the Boltzmann machine."""

import math
from numbers import Integral
from os import PathLike

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skebm._check import Interval, StrOptions
from skebm._torch import make_generator, to_numpy
from skebm.energies import Boltzmann
from skebm.energies.boltzmann import MOST_HIDDEN
from skebm.estimators.bit_density import BitDensity
from skebm.estimators.boltzmann_training import (
    CHAIN_UPDATES,
    EXACT_SPEED,
    EXACT_UPDATES,
    HIDDEN_UPDATES,
    pair_rate,
    trained,
)
from skebm.estimators.choices import resolve
from skebm.objectives import BoltzmannLikelihood, PseudoLikelihood
from skebm.partition import AnnealedUnitGibbs, StateSum
from skebm.partition.pseudo import pseudo_log_likelihood_of_bits
from skebm.samplers import UnitGibbs, draw_units, run_chains
from skebm.samplers.state_law import MOST_UNITS

OBJECTIVES = {
    "likelihood": BoltzmannLikelihood(),
    "pcd": BoltzmannLikelihood("persistent"),
    "pseudo_likelihood": PseudoLikelihood(),
}
NORMALIZERS = {"sum": StateSum(), "annealing": AnnealedUnitGibbs()}

N_GUESSES = 20
"""Draws of a row's missing entries that an imputed value is the mean of."""

N_CHAINS = 64
"""Chains of a diagnosis."""


class BoltzmannMachine(BitDensity):
    """A Boltzmann machine: every pair of bits, visible or hidden, may couple.

    E(s) = -s'Ls/2 - a's over s = (v, h), L symmetric with zero diagonal;
    E(v) = -log sum_h exp(s'Ls/2 + a's), p(v) = exp(-E(v)) / Z. Without hidden bits it
    is the maximum-entropy model of the columns' means and pairwise frequencies: an
    Ising model whose spins 2v - 1 have couplings L/4. Zero means conditionally
    independent given all other columns.

    Parameters
    ----------
    n_components : int, default=0
        Hidden bits, in [0, 16].
    learning_rate : float or "auto", default="auto"
        Rate at the start, > 0; it falls to a hundredth. "auto": one over the largest
        eigenvalue of the covariance of products of two columns, at most 1; 8 times
        that where the gradient has no noise.
    batch_size : int or "auto", default="auto"
        Rows per update, >= 1. "auto": 100 with chains, else all rows (up to 2^20
        states of rows and hidden bits).
    n_iter : int or "auto", default="auto"
        Epochs, >= 1. "auto": 4,000 updates with chains, else 500, with
        hidden bits 2,000.
    verbose : int, default=0
        Whether to print a line after every epoch.
    random_state : int, RandomState or None, default=None
        Seed of weights, chains, batches and draws.
    binarize : float or None, default=None
        Values above are 1, others 0. None: X lies in [0, 1], and values between are
        taken for probabilities of bits.
    objective : str or Objective, default="auto"
        "likelihood" (exact, up to 20 units in all), "pcd" (chains), or
        "pseudo_likelihood" (no hidden bits: convex and without chains or sums). "auto":
        the first where it is possible, else the second. A `BoltzmannLikelihood` or
        `PseudoLikelihood` sets the penalty and the chains.
    normalizer : {"auto", "sum", "annealing"}, Normalizer or None, default="auto"
        "auto": log Z is summed exactly up to 20 units, else annealed both ways. None:
        log Z stays unknown and there is no `score`.
    early_stopping : bool, default=False
        Evaluate held-out rows 30 times, keep the best model and stop when 15
        evaluations bring no better one.
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
    couplings_ : DataFrame of shape (n_units, n_units)
        L, rows and columns named after the features and ``hidden0``, ``hidden1``, ...
    intercept_visible_ : ndarray of shape (n_features_in_,)
        a of the columns.
    intercept_hidden_ : ndarray of shape (n_components,)
        a of the hidden bits.
    energy_ : Boltzmann
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
    Cost per update: 2^n_units multiplications where exact, else n_units^2 per chain.
    Sparse X is made dense. Limits: hidden bits can stay unused where the penalty holds
    them, which ``BoltzmannLikelihood(weight_decay=0.0)`` does not; beyond 20 units a
    sweep draws one unit after the other, at about 10 microseconds each. `BernoulliRBM`
    has many hidden bits at less cost.

    References
    ----------
    .. [1] Ackley, Hinton, Sejnowski (1985), A learning algorithm for Boltzmann
       machines, Cognitive Science 9(1).

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import BoltzmannMachine
    >>> X = np.array([[0, 0], [0, 0], [1, 1], [1, 1], [0, 1], [1, 0]])
    >>> machine = BoltzmannMachine(random_state=0).fit(X)
    >>> bool(machine.couplings_.loc["x0", "x1"] > 0)
    True
    """

    _parameter_constraints: dict = {
        **BitDensity._parameter_constraints,
        "checkpoint": [str, PathLike, None],
        "n_components": [Interval(Integral, 0, MOST_HIDDEN, closed="both")],
        "batch_size": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "objective": [
            StrOptions({"auto", *OBJECTIVES}),
            BoltzmannLikelihood,
            PseudoLikelihood,
        ],
    }

    def __init__(
        self,
        n_components=0,
        *,
        learning_rate="auto",
        batch_size="auto",
        n_iter="auto",
        verbose=0,
        random_state=None,
        binarize=None,
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
            Rows. A value v_i between 0 and 1 counts as v_i of a one and 1 - v_i of a
            zero.

        Returns
        -------
        ndarray of shape (n_samples,)
            In nats.

        Raises
        ------
        ValueError
            If there are hidden bits.
        """
        check_is_fitted(self)
        if self.energy_.n_hidden:
            raise ValueError(
                f"pseudo_log_likelihood needs a machine without hidden bits; got "
                f"n_components={self.energy_.n_hidden}. Use score_samples."
            )
        return self._mapped(
            lambda v: pseudo_log_likelihood_of_bits(self.energy_, v), self._rows(X)
        )

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
        missing = np.isnan(rows)
        some = missing.any(1)
        if not some.any():
            return self._named(rows)
        generator = make_generator(self._seed(random_state), self.device_)
        guesses = self._tensor(np.repeat(rows[some], N_GUESSES, 0))
        s = draw_units(self.energy_, guesses, generator=generator)
        mean = torch.addmm(self.energy_.bias, s, self.energy_.matrix()).sigmoid()
        mean = mean.view(-1, N_GUESSES, s.shape[1]).mean(1)[:, : rows.shape[1]]
        full = rows.copy()
        full[some] = np.where(missing[some], to_numpy(mean), rows[some])
        return self._named(full)

    def _run_chains(self, n_draws, seed):
        """Run chains of single-unit Gibbs steps over the columns."""
        generator = make_generator(seed, self.device_)
        nothing = self._tensor(np.full((N_CHAINS, self.n_features_in_), np.nan))
        chains = run_chains(
            UnitGibbs(),
            self.energy_,
            self._fill(nothing, generator),
            n_draws=n_draws,
            generator=generator,
        )
        return chains, self._column_names(), self.calibration_energy_

    def _train(self, rows, valid):
        """Train the machine."""
        machine = Boltzmann(self.n_components)
        generator = make_generator(self._fit_seed)
        machine.build(rows.shape[1], generator=generator).to(self.device_).match(rows)
        objective = self._chosen_objective(machine)
        likelihood = isinstance(objective, BoltzmannLikelihood)
        has_chains = likelihood and objective.chains == "persistent"
        rate, batch_size, n_epochs = self._settings(rows, has_chains)
        interrupted = self._keep(
            trained(
                machine,
                objective,
                rows,
                valid,
                self.get_params(False) | {"batch_size": batch_size},
                rate=rate,
                n_epochs=n_epochs,
                on_epoch=self._printer(),
                seed=self._fit_seed,
            )
        )
        self.energy_ = machine
        self._describe()
        return interrupted

    def _chosen_objective(self, machine):
        """Return a fresh objective for a built machine."""
        chosen = self.objective
        if chosen == "auto":
            chosen = "likelihood" if machine.n_units <= MOST_UNITS else "pcd"
        return resolve(chosen, OBJECTIVES)

    def _settings(self, rows, has_chains):
        """Return learning rate, batch size and epochs for training rows."""
        n, batch_size = len(rows), self.batch_size
        if batch_size == "auto":
            batch_size = 100 if has_chains else max(1, 2**20 >> self.n_components)
        n_batches = math.ceil(n / batch_size)
        rate, n_epochs = self.learning_rate, self.n_iter
        if rate == "auto":
            rate = pair_rate(rows, make_generator(self._fit_seed, rows.device))
            if not has_chains and n_batches == 1:
                rate *= EXACT_SPEED
        if n_epochs == "auto":
            n_updates = HIDDEN_UPDATES if self.n_components else EXACT_UPDATES
            n_updates = CHAIN_UPDATES if has_chains else n_updates
            n_epochs = max(1, n_updates // n_batches)
        return rate, batch_size, n_epochs

    def _describe(self):
        """Set the couplings and biases that users read."""
        import pandas as pd

        machine, n = self.energy_, self.n_features_in_
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(n)])
        units = [*names, *(f"hidden{j}" for j in range(machine.n_hidden))]
        couplings = to_numpy(machine.matrix())
        self.couplings_ = pd.DataFrame(couplings, index=units, columns=units)
        bias = to_numpy(machine.bias)
        self.intercept_visible_, self.intercept_hidden_ = bias[:n], bias[n:]

    def _find_partition(self, rows, generator):
        """Return log Z: summed, or annealed both ways."""
        chosen = self.normalizer
        if chosen == "auto":
            chosen = "sum" if self.energy_.n_units <= MOST_UNITS else "annealing"
        found = resolve(chosen, NORMALIZERS)
        if isinstance(found, AnnealedUnitGibbs):
            return found(self.energy_, generator=generator, x=rows)
        return found(self.energy_, generator=generator)

    def _fill(self, rows, generator):
        """Return rows with missing entries drawn given the others."""
        s = draw_units(self.energy_, rows, generator=generator)
        return s[:, : rows.shape[1]]
