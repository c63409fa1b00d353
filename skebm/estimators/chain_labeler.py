"""p(y | x) = exp(sum_t u(x_t, y_t) + sum_t A[y_(t-1), y_t]) / Z(x): labels in a row."""

import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.callback import with_callbacks

from skebm._check import Interval, check_labelled, fit_context
from skebm._torch import (
    make_generator,
    refuse_forked_process,
    resolve_device,
    to_numpy,
)
from skebm.energies import Chain
from skebm.estimators.boltzmann_training import layer_sizes
from skebm.estimators.chain_readers import ChainReaders
from skebm.estimators.chain_training import train_chain
from skebm.estimators.scaling import location_and_scale, warn_of_denormals
from skebm.estimators.sequences import flattened, flattened_labels
from skebm.exceptions import InterruptedFitWarning


class ChainLabeler(ChainReaders):
    """A classifier of every row of a sequence: a linear-chain conditional random field.

    E(x, y) = -sum_t u(x_t, y_t) - sum_t A[y_(t-1), y_t] - s[y_1] - e[y_T] for a
    sequence of T rows x_t with labels y_t, and p(y | x) = exp(-E(x, y)) / Z(x). Labels
    that often follow each other have a large A. Likeliest labels, marginals, log Z(x),
    log p(y | x) and draws are exact.

    X is a list of tables of shape (length, n_features), arrays or DataFrames with the
    same columns, or one array of shape (n, length, n_features), and y a list of arrays
    of labels. A 2-D X is a table whose rows are sequences of length one, and y is 1-D:
    then this is multinomial logistic regression.

    Parameters
    ----------
    alpha : float, default=1.0
        Factor, > 0, on half the squared weights (those of u, A, s and e, not the
        intercepts) in the loss summed over sequences: 1 / C of
        :class:`~sklearn.linear_model.LogisticRegression`.
    hidden_layer_sizes : tuple of int, default=()
        Units of the hidden layers of u, each >= 1. (): u is linear in x_t and the loss
        convex.
    window : int, default=0
        Rows before and after x_t that u sees too, >= 0; where the sequence has none it
        sees mean rows.
    max_iter : int, default=1000
        Most iterations of L-BFGS, >= 1.
    tol : float, default=1e-4
        Largest slope of the loss per label, > 0, at which training ends.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a CUDA device if there is one.
    random_state : int, RandomState or None, default=None
        Seed of the draws, and of the initial weights of hidden layers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    transitions_ : DataFrame of shape (n_classes, n_classes)
        A: a row for the label before, a column for the label after.
    start_, end_ : ndarray of shape (n_classes,)
        s and e.
    coef_ : ndarray of shape (n_classes, (2 * window + 1) * n_features_in_)
        Weights of u on scaled columns, the earliest row first; without hidden layers.
    intercept_ : ndarray of shape (n_classes,)
        Their intercepts; without hidden layers.
    energy_ : Chain
        The energy of scaled sequences and codes of labels, in double precision, on
        ``device_``.
    history_ : dict of str to ndarray
        "loss": penalised loss per label after each iteration, in nats.
    n_iter_ : int
        Iterations run.
    location_, scale_ : ndarray of shape (n_features_in_,)
        Mean and standard deviation of the columns; columns in one unit share one.
    device_ : str
        Where the energy lives.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if X held DataFrames with string names.

    Raises
    ------
    ValueError
        If sequences differ in their columns, are empty or hold NaN, or X[i] and y[i]
        differ in length.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` comes before the minimum.
    InterruptedFitWarning
        If Ctrl-C ends training: the last whole iteration is kept and ``fit`` finished.

    Notes
    -----
    One stream of 20,000 rows and three labels trains in about a second. With more than
    some 15 labels the steps of a sequence are taken one after another, at 0.1 ms per
    step, iteration and 256 sequences: cut long streams into pieces. Limits: a
    label sees only the one before it; labels far apart meet through those between.

    References
    ----------
    .. [1] Lafferty, McCallum, Pereira (2001), Conditional random fields: probabilistic
       models for segmenting and labeling sequence data, ICML.
    .. [2] Sutton, McCallum (2012), An introduction to conditional random fields,
       Foundations and Trends in Machine Learning 4(4).

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import ChainLabeler
    >>> X = [np.array([[0.0], [0.2], [1.1], [0.9]]), np.array([[0.1], [0.8], [1.0]])]
    >>> y = [["rest", "rest", "walk", "walk"], ["rest", "walk", "walk"]]
    >>> model = ChainLabeler(random_state=0).fit(X, y)
    >>> model.predict(X)[1].tolist()
    ['rest', 'walk', 'walk']
    """

    _parameter_constraints: dict = {
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "hidden_layer_sizes": [
            "array-like",
            Interval(Integral, 1, None, closed="left"),
        ],
        "window": [Interval(Integral, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "device": [str],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        alpha=1.0,
        *,
        hidden_layer_sizes=(),
        window=0,
        max_iter=1000,
        tol=1e-4,
        device="auto",
        random_state=None,
    ):
        self.alpha = alpha
        self.hidden_layer_sizes = hidden_layer_sizes
        self.window = window
        self.max_iter = max_iter
        self.tol = tol
        self.device = device
        self.random_state = random_state

    @with_callbacks
    @fit_context
    def fit(self, X, y):
        """Train the chain.

        Parameters
        ----------
        X : list of array-like of shape (length, n_features)
            Sequences; or a 3-D array of shape (n, length, n_features); or a table of
            shape (n_samples, n_features), sparse too, of sequences of length one.
        y : list of array-like of shape (length,)
            Labels, strings or integers, of two classes or more; or an array of shape
            (n, length), or (n_samples,).

        Returns
        -------
        self : ChainLabeler
            The fitted estimator.
        """
        chain, features, codes, layout = self._begin(X, y)
        self._begin_tasks(1)
        descent = train_chain(
            chain,
            torch.from_numpy(features).to(self.device_),
            torch.from_numpy(codes).to(self.device_),
            layout,
            alpha=float(self.alpha),
            max_iter=int(self.max_iter),
            tol=float(self.tol),
        )
        self._settle(chain, descent)
        self._end_task("training")
        return self._end_tasks()

    def _begin(self, X, y):
        """Forget the last fit; return a chain, what it sees, codes, the layout."""
        self.__dict__.pop("energy_", None)
        table, layout = flattened(type(self).__name__, X)
        rows, labels = check_labelled(self, table, flattened_labels(y, layout))
        self._fitted_to_rows = layout.form == "rows"
        refuse_forked_process()
        sizes = self.hidden_layer_sizes
        hidden = layer_sizes(sizes) if np.size(sizes) else ()
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.location_, self.scale_ = location_and_scale(rows)
        warn_of_denormals(rows, np.arange(rows.shape[1]))
        self.device_ = str(resolve_device(self.device))
        features = self._features(rows, layout)
        chain = Chain(len(self.classes_), hidden)
        generator = make_generator(self._seed())
        chain.build(features.shape[1] + 1, generator=generator)
        return chain.to(self.device_, torch.float64), features, codes, layout

    def _settle(self, chain, descent):
        """Take a trained chain as the model."""
        import pandas as pd

        self.history_ = {"loss": np.asarray(descent.losses)}
        self.n_iter_ = len(descent.losses)
        if descent.interrupted:
            warnings.warn(
                f"fit was interrupted: the chain is that of iteration {self.n_iter_}. "
                "Fit again for the whole training, or lower max_iter.",
                InterruptedFitWarning,
                stacklevel=5,
            )
        labels = self.classes_
        self.transitions_ = pd.DataFrame(to_numpy(chain.transitions), labels, labels)
        self.start_, self.end_ = to_numpy(chain.start), to_numpy(chain.end)
        for name in ("coef_", "intercept_"):
            self.__dict__.pop(name, None)
        if not chain.hidden:
            layer = chain.network[0]
            self.coef_, self.intercept_ = to_numpy(layer.weight), to_numpy(layer.bias)
        self.energy_ = chain.requires_grad_(False).eval()
