"""p(y | x) = softmax_y(d_y + sum_j log(1 + exp(c_j + U_jy + W_j x)))."""

import warnings
from numbers import Integral, Real
from os import PathLike

import numpy as np
import torch
from sklearn.callback import with_callbacks

from skebm._check import (
    Interval,
    StrOptions,
    check_bits,
    check_labelled,
    check_units,
    check_weights,
    fit_context,
    refuse_few,
)
from skebm._torch import (
    in_chunks,
    make_generator,
    to_numpy,
)
from skebm.energies import ClassRBM
from skebm.estimators.class_readers import ClassReaders
from skebm.estimators.class_training import train_classifier
from skebm.estimators.rbm_drawing import drawn
from skebm.estimators.weighting import counted
from skebm.exceptions import InterruptedFitWarning

CHUNK = 64
"""Rows per chunk of the readers."""

ADVICE = "put a KBinsDiscretizer with one-hot codes before it"
"""On rows that are not bits at heart."""


class RBMClassifier(ClassReaders):
    """A classifier that is a restricted Boltzmann machine of a row and its label.

    E(x, y, h) = -b'x - d_y - c'h - h'(W x + U_y) with hidden bits h, summed out; given
    x the label has p(y | x) = softmax_y(d_y + sum_j log(1 + exp(c_j + U_jy + W_j x))),
    exact and without log Z. The same machine draws rows of a given class.

    Parameters
    ----------
    n_components : int, default=1000
        Hidden bits, >= 1.
    training : {"hybrid", "discriminative", "generative"}, default="hybrid"
        What is ascended: log p(y | x), log p(x, y), or
        log p(y | x) + generative_weight log p(x, y).
    generative_weight : float, default=0.003
        Weight > 0 of the second term in hybrid training. More of it makes better
        draws, and helps where labelled rows are few; less fits the labels more
        closely.
    learning_rate : float or "auto", default="auto"
        Largest rate, > 0, of steps that AdamW scales. "auto" is 48 over the number of
        updates, between 0.004 and 0.02; in generative training that of
        `BernoulliRBM`.
    batch_size : int, default=100
        Rows per update, >= 1.
    max_iter : int or "auto", default="auto"
        Epochs, >= 1. "auto": 12,000 updates or 200 epochs, whichever is less, but at
        least 1,000 updates; in generative training those of `BernoulliRBM`.
    dropout : float, default=0.2
        Share of the entries of a row, in [0, 1), hidden from the prediction while
        training; without effect in generative training.
    binarize : float or None, default=None
        Values above are 1, others 0. None: X lies in [0, 1], and values between are
        taken for probabilities of bits.
    early_stopping : bool, default=False
        Evaluate held-out rows 40 times (30 in generative training), keep the best
        model and stop when 15 evaluations bring no better one.
    validation_fraction : float, default=0.1
        Share of the rows, in (0, 1), held out for that.
    checkpoint : str, path or None, default=None
        File to write to during training. A fit with the same data and parameters goes
        on from it, to the same bits.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a CUDA device if there is one.
    random_state : int, RandomState or None, default=None
        Seed of weights, chains, batches, dropout and draws.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    components_ : ndarray of shape (n_components, n_features_in_)
        W.
    class_components_ : ndarray of shape (n_components, n_classes)
        U.
    intercept_hidden_ : ndarray of shape (n_components,)
        c.
    intercept_visible_ : ndarray of shape (n_features_in_,)
        b.
    intercept_classes_ : ndarray of shape (n_classes,)
        d.
    energy_ : ClassRBM
        The machine as an energy of x and the code of y, in double precision, on
        ``device_``.
    history_ : dict of str to ndarray
        One number per epoch: "loss" in nats and "training_error" under dropout, or
        those of `BernoulliRBM` in generative training.
    n_iter_ : int
        Epochs run.
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

    Notes
    -----
    An update costs about n_components * batch_size * n_classes sigmoids and
    logarithms. Sparse X is made dense; missing entries are not supported. Limits:
    columns that are not bits at heart lose what ``binarize`` drops; draws are good
    only where log p(x, y) had weight in training.

    References
    ----------
    .. [1] Larochelle, Bengio (2008), Classification using discriminative restricted
       Boltzmann machines, ICML.
    .. [2] Larochelle, Mandel, Pascanu, Bengio (2012), Learning algorithms for the
       classification restricted Boltzmann machine, Journal of Machine Learning
       Research 13.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import RBMClassifier
    >>> X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), ["no", "yes", "yes", "no"]
    >>> model = RBMClassifier(n_components=20, random_state=0).fit(X, y)
    >>> model.predict([[0, 1], [1, 1]]).tolist()
    ['yes', 'no']
    """

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "training": [StrOptions({"hybrid", "discriminative", "generative"})],
        "generative_weight": [Interval(Real, 0, None, closed="neither")],
        "learning_rate": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
        ],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "binarize": [Interval(Real, None, None, closed="neither"), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "checkpoint": [str, PathLike, None],
        "device": [str],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components=1000,
        *,
        training="hybrid",
        generative_weight=0.003,
        learning_rate="auto",
        batch_size=100,
        max_iter="auto",
        dropout=0.2,
        binarize=None,
        early_stopping=False,
        validation_fraction=0.1,
        checkpoint=None,
        device="auto",
        random_state=None,
    ):
        self.n_components = n_components
        self.training = training
        self.generative_weight = generative_weight
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.dropout = dropout
        self.binarize = binarize
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.checkpoint = checkpoint
        self.device = device
        self.random_state = random_state

    @with_callbacks
    @fit_context
    def fit(self, X, y, sample_weight=None):
        """Train the machine.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,)
            Their labels, of two classes or more.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            How often each row counts, >= 0; None is once. Whole numbers are the row as
            often; of others only the ratios matter.

        Returns
        -------
        self : RBMClassifier
            The fitted estimator.
        """
        rbm, table = self._begin(X, y, sample_weight)
        self._begin_tasks(1)
        history = train_classifier(rbm, table, self.get_params(False), self._fit_seed)
        self._settle(rbm, history)
        self._end_task("training")
        return self._end_tasks()

    def _begin(self, X, y, sample_weight):
        """Forget the last fit; return a machine, and counted rows with their codes."""
        self.__dict__.pop("energy_", None)
        X, y = check_labelled(self, X, y)
        refuse_few(self, len(X))
        weight = check_weights(X, sample_weight)
        X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Got the label {str(self.classes_[0])!r} in every row of positive "
                "weight, but expected two classes or more."
            )
        rows = np.column_stack([check_bits(self, X, ADVICE), codes])
        table = counted(rows, weight, together=False)
        self._set_device_and_seed()
        rbm = ClassRBM(self.n_components, len(self.classes_))
        rbm.build(rows.shape[1], generator=make_generator(self._fit_seed))
        return rbm.to(self.device_), table

    def _settle(self, rbm, history):
        """Take a trained machine as the model."""
        if history.interrupted:
            warnings.warn(
                f"fit was interrupted: the machine is that of epoch {history.n_iter}. "
                "Fit again for the whole training, or lower max_iter.",
                InterruptedFitWarning,
                stacklevel=4,
            )
        self.history_ = {k: np.asarray(v) for k, v in history.history.items()}
        self.n_iter_ = history.n_iter
        k = len(self.classes_)
        weight, visible = to_numpy(rbm.weight), to_numpy(rbm.visible_bias)
        self.components_, self.class_components_ = weight[:, :-k], weight[:, -k:]
        self.intercept_visible_, self.intercept_classes_ = visible[:-k], visible[-k:]
        self.intercept_hidden_ = to_numpy(rbm.hidden_bias)
        self._n_features_out = self.n_components
        self.energy_ = rbm.double().requires_grad_(False).eval()

    def _rows(self, X):
        """Return X checked against the columns of ``fit``, in [0, 1]."""
        rows = check_units(self, X, reset=False, allow_nan=False)
        return check_bits(self, rows, ADVICE)

    def _row_energy(self, x):
        """Return E(x), shape (n,)."""
        return -(-self.energy_.class_energies(x)).logsumexp(1)

    def _measure(self, rows, function):
        """Return a function of rows, computed in double precision."""
        x = torch.from_numpy(rows).to(self.device_, torch.float64)
        with torch.inference_mode():
            return to_numpy(in_chunks(lambda chunk: (function(chunk),), CHUNK, x)[0])

    def _drawn(self, n_samples, place, seed):
        """Return rows of bits, with the label given or drawn too.

        Exact up to 16 hidden bits; else each row is annealed from independent columns
        and moved by 100 Gibbs steps.
        """
        rows = np.full((n_samples, self.n_features_in_ + 1), np.nan)
        if place is not None:
            rows[:, -1] = place
        return drawn(self.energy_, rows, seed)[:, :-1]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
