"""p(v) = sum_h p(v | h1) p(h1 | h2) ... p(top RBM): the deep belief network."""

from numbers import Integral

import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skebm._check import Interval, StrOptions
from skebm._torch import (
    bernoulli,
    make_generator,
    to_numpy,
)
from skebm.energies import DeepBelief
from skebm.estimators.bit_density import BitDensity
from skebm.estimators.boltzmann_training import layer_sizes, trained
from skebm.estimators.rbm_drawing import chains_of, log_partition_of
from skebm.estimators.rbm_training import epochs_for, stable_rate, with_fast_biases
from skebm.objectives import DrawnRowsLikelihood, RBMLikelihood
from skebm.samplers import draw_missing

CHAINS = {"pcd": "persistent", "cd": "data", "tempered": "tempered"}

UPPER_SPEED = 0.03
"""Upper layers start near a good machine, and their rows are noisy draws."""

N_CANDIDATES = 4096
"""Draws of the hidden layers among which given columns choose."""


class DeepBeliefNetwork(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BitDensity):
    """A deep belief network: RBMs trained one on the hidden bits of the other.

    p(v, h_1, ..., h_L) = p(v | h_1) ... p(h_(L-2) | h_(L-1)) p(h_(L-1), h_L): the top
    two layers are an RBM, the others are read downwards. `score_samples` is a lower
    bound on the log-likelihood in expectation (exact with one hidden layer): the
    importance-weighted variational bound of 50 draws of the hidden layers per row, with
    the same noise for every row.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(64, 256)
        Bits of the hidden layers, from below. An upper layer starts as the RBM below it
        turned upside down: where it is at least as large as the layer two below, the
        variational bound starts where it was, and training raises it.
    learning_rate : float or "auto", default="auto"
        Rate at the start, > 0; it falls to a hundredth. "auto": that of `BernoulliRBM`
        for the rows and hidden bits of the layer, and 3% of it in upper layers.
    batch_size : int, default=100
        Rows per update, >= 1.
    n_iter : int or "auto", default="auto"
        Epochs of every layer, >= 1. "auto": 7,500 updates, at most 500 epochs.
    verbose : int, default=0
        Whether to print a line after every epoch.
    random_state : int, RandomState or None, default=None
        Seed of weights, chains, batches and draws.
    binarize : float or None, default=None
        Values above are 1, others 0. None: X lies in [0, 1], and values between are
        taken for probabilities of bits.
    objective : {"pcd", "cd", "tempered"}, default="pcd"
        How the chains of the gradient run; see `BernoulliRBM`.
    normalizer : {"auto", "sum", "annealing"}, Normalizer or None, default="auto"
        Of the top RBM. "auto": log Z is summed exactly where its smaller layer has up
        to 22 bits, and else annealed both ways. None: log Z stays unknown and there is
        no `score`.
    early_stopping : bool, default=False
        Evaluate held-out rows 30 times per layer, keep the best RBM by their
        log-likelihood and stop when 15 evaluations bring no better one.
    validation_fraction : float, default=0.1
        Share of the rows, in (0, 1), held out for that; they also calibrate.
    contamination : "auto" or float, default="auto"
        A float in (0, 0.5] is the share of training rows to flag. "auto" aims at a
        false-alarm rate of 5% on normal rows.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a CUDA device if there is one.

    Attributes
    ----------
    coefs_ : list of ndarray of shape (n_l, n_(l+1))
        Weights of the RBMs, from below, as in scikit-learn's networks.
    intercepts_ : list of ndarray of shape (n_l,)
        Biases of the generating directions: those of the visible units of every RBM,
        then those of the hidden units of the top one.
    histories_ : list of dict of str to ndarray
        Of every layer that was trained: one number per epoch.
    energy_ : DeepBelief
        The network as an energy, in double precision, on ``device_``.
    calibration_energy_ : ndarray of shape (n_calibration,)
        Sorted energies of the held-out rows, or of the training rows where none were
        held out: then `calibrate` with fresh rows makes p-values exact.
    history_ : dict of str to ndarray
        That of the last layer that was trained.
    n_iter_ : int
        Epochs run for that layer.
    log_partition_, log_partition_interval_, log_partition_ess_ : float, tuple, float
        log Z of the top RBM in nats, its 95% interval, its effective sample size.
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
        If Ctrl-C ends the training of a layer: its last whole epoch is kept, and the
        layers above stay as they start.
    ConvergenceWarning
        If the training rows are less likely than with independent columns.
    PartitionWarning
        If the two annealed estimates of log Z disagree.

    Notes
    -----
    Sparse X is made dense. Limits: no fine-tuning of the layers together; a bound, so
    that a lower score than that of a `BernoulliRBM` may be a loose bound; rows given
    some columns come from 4,096 draws of the hidden layers weighted by these columns,
    which is poor for many of them. The chains of `diagnose` draw the visible bits of
    the top RBM, which are the columns where there is one layer; ``energy_gap`` is NaN.
    The layers below are drawn from these bits without chains.

    References
    ----------
    .. [1] Hinton, Osindero, Teh (2006), A fast learning algorithm for deep belief nets,
       Neural Computation 18(7).
    .. [2] Salakhutdinov, Murray (2008), On the quantitative analysis of deep belief
       networks, ICML.
    .. [3] Burda, Grosse, Salakhutdinov (2016), Importance weighted autoencoders, ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import DeepBeliefNetwork
    >>> X = np.array([[0, 0, 1, 1], [1, 1, 0, 0]]).repeat(20, 0)
    >>> network = DeepBeliefNetwork((4, 3), n_iter=100, random_state=0).fit(X)
    >>> network.transform(X).shape
    (40, 3)
    >>> network.sample(2).shape
    (2, 4)
    """

    _parameter_constraints: dict = {
        **BitDensity._parameter_constraints,
        "hidden_layer_sizes": [
            "array-like",
            Interval(Integral, 1, None, closed="left"),
        ],
        "objective": [StrOptions(set(CHAINS))],
    }

    def __init__(
        self,
        hidden_layer_sizes=(64, 256),
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
        self.contamination = contamination
        self.device = device

    def transform(self, X):
        """Return the means of the top layer, each layer given the means below it.

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
        rows = self._rows(X)
        means = self._mapped(lambda v: self.energy_.up(v)[-1], rows)
        return means.astype(rows.dtype)

    def _run_chains(self, n_draws, seed):
        """Run chains of block Gibbs over the visible bits of the top RBM."""
        top, names = self.energy_.top, self._column_names()
        if len(self.energy_.machines) > 1:
            names = [f"hidden{j}" for j in range(top.layer.n_features)]
        return chains_of(top, n_draws, seed), names, None

    def _train(self, rows, valid):
        """Train the RBMs from below, each on draws of the one below it."""
        sizes = layer_sizes(self.hidden_layer_sizes)
        generator = make_generator(self._fit_seed)
        network = DeepBelief(sizes).build(rows.shape[1], generator=generator)
        self.energy_, self.histories_ = network.to(self.device_), []
        interrupted = False
        for i, rbm in enumerate(network.machines):
            self._start(i, rows)
            if not interrupted:
                interrupted = self._train_layer(i, rows, valid)
                self.histories_.append(self.history_)
            rows = self._above(i, rbm, rows)
            valid = None if valid is None else self._above(i, rbm, valid)
        self._n_features_out = sizes[-1]
        machines = network.machines
        self.coefs_ = [to_numpy(rbm.weight.T) for rbm in machines]
        biases = [rbm.visible_bias for rbm in machines]
        self.intercepts_ = [to_numpy(b) for b in [*biases, machines[-1].hidden_bias]]
        return interrupted

    def _start(self, i, rows):
        """Give an RBM the biases of its rows; turn the one below it upside down."""
        machines = self.energy_.machines
        rbm = machines[i].match(rows)
        if i:
            below = machines[i - 1]
            n = min(rbm.n_hidden, below.layer.n_features)
            with torch.no_grad():
                rbm.weight[:n] = below.weight.T[:n]
                rbm.visible_bias.copy_(below.hidden_bias)
                rbm.hidden_bias[:n] = below.visible_bias[:n]

    def _train_layer(self, i, rows, valid):
        """Train the i-th RBM on rows; return whether Ctrl-C ended it."""
        kind = DrawnRowsLikelihood if i else RBMLikelihood
        objective = kind(chains=CHAINS[self.objective])
        rate, n_epochs, seed = self.learning_rate, self.n_iter, self._fit_seed + i
        if rate == "auto":
            generator = make_generator(seed, rows.device)
            rate = stable_rate(rows, generator, self.energy_.machines[i].n_hidden)
            objective = with_fast_biases(objective, rate)
            rate *= UPPER_SPEED if i else 1.0
        if n_epochs == "auto":
            n_epochs = max(1, epochs_for(len(rows), self.batch_size) // 4)
        return self._keep(
            trained(
                self.energy_.machines[i],
                objective,
                rows,
                valid,
                self.get_params(False),
                rate=rate,
                n_epochs=n_epochs,
                on_epoch=self._printer(),
                seed=seed,
            )
        )

    def _above(self, i, rbm, rows):
        """Return the means of the layer above, given draws of these rows."""
        with torch.no_grad():
            if i:
                generator = make_generator(self._fit_seed + i, rows.device)
                rows = bernoulli(rows.clone(), generator)
            return rbm.hidden_mean(rows)

    def _find_partition(self, rows, generator):
        """Return log Z of the top RBM."""
        network = self.energy_
        with torch.no_grad():
            below = [rows.double(), *network.up(rows.double())][-2]
            below = bernoulli(below.clone(), generator)
        return log_partition_of(network.top, self.normalizer, below, self._fit_seed)

    def _fill(self, rows, generator):
        """Return rows with missing entries drawn given the others, all alike."""
        network, missing = self.energy_, rows.isnan()
        with torch.no_grad():
            if len(network.machines) == 1:
                return draw_missing(network.top, rows, generator=generator)
            conditioned = not missing.all()
            n = max(N_CANDIDATES, len(rows)) if conditioned else len(rows)
            nothing = rows.new_full((n, network.top.layer.n_features), torch.nan)
            h = draw_missing(network.top, nothing, generator=generator)
            fields = network.machines[0].visible_fields(
                network.down(h, generator=generator)
            )
            if conditioned:
                known = rows[:1].nan_to_num(0.0)
                fits = known * fields - torch.nn.functional.softplus(fields)
                p = (fits * ~missing[:1]).sum(1).softmax(0)
                fields = fields[p.multinomial(len(rows), True, generator=generator)]
            drawn = bernoulli(fields.sigmoid(), generator)
        return torch.where(missing, drawn, rows)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
