"""p(v_q = k | v) = softmax_k(b_qk + sum_j log(1 + exp(f_j + s_k w_qj))): ratings."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.callback import with_callbacks

from skebm._check import Interval, StrOptions, fit_context
from skebm.estimators.rating_readers import RatingReaders
from skebm.estimators.rating_side import RatingSide
from skebm.estimators.rating_table import Levels, listed, shrunk_means
from skebm.exceptions import InterruptedFitWarning


class RatingRBM(RatingReaders):
    """A recommender: restricted Boltzmann machines of the ratings that users gave.

    Every user is a machine over the items that he or she rated, unrated ones left out;
    all users share its weights. The rating of an item q given a user's other ratings v
    has the levels k = 0, ..., K - 1 with
    p(v_q = k | v) = softmax_k(b_qk + sum_j log(1 + exp(f_j + s_k w_qj))), exact, with
    f_j = c_j + sum_i (s_(v_i) w_ij + D_ij / sqrt(n)) over the n rated items and evenly
    spaced s_k. A second machine has items as its rows and users as its columns; the
    prediction is the mean of the two expected ratings.

    Parameters
    ----------
    n_components : int, default=50
        Hidden bits of each machine, >= 1.
    over : {"both", "users"}, default="both"
        Which machines are trained. New users are predicted by the one over users.
    learning_rate : float or "auto", default="auto"
        Largest rate, > 0, of steps that AdamW scales. "auto" is 0.01.
    batch_size : int, default=50
        Users, or items, per update, >= 1.
    max_iter : int or "auto", default="auto"
        Epochs, >= 1. "auto": enough for 400 updates, between 20 and 400.
    dropout : float, default=0.3
        Share of a user's ratings, in [0, 1), hidden from each prediction while
        training.
    weight_decay : float, default=3.0
        Factor, >= 0, on |w|^2 in the loss summed over all ratings. Larger is smoother.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a CUDA device if there is one.
    random_state : int, RandomState or None, default=None
        Seed of weights, batches, dropout and draws.

    Attributes
    ----------
    users_, items_ : ndarray of shape (n_users,), ndarray of shape (n_items,)
        Labels: those of a long table, or the places of rows and columns, or the names
        of columns.
    levels_ : ndarray of shape (n_levels,)
        The distinct ratings; above ten, the means of ten bins of about equal counts.
    item_means_, user_means_ : ndarray of shape (n_items,), ndarray of shape (n_users,)
        Mean ratings, with five ratings at ``mean_`` added to each.
    mean_ : float
        Mean of all ratings.
    components_ : ndarray of shape (n_components, n_items)
        w of the machine over users.
    energy_ : OrdinalRBM
        That machine, in double precision, on ``device_``.
    item_energy_ : OrdinalRBM or None
        The machine over items.
    history_ : dict of str to ndarray
        One number per epoch: "nll", nats per rating under dropout, and "item_nll".
    n_iter_ : int
        Epochs run by the machine over users.
    device_ : str
        Where the machines live.
    n_features_in_ : int
        Columns of X in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if X was a DataFrame with string names.

    Raises
    ------
    DataDomainError
        If X holds no rating, or a long table holds ratings that are not finite.

    Warns
    -----
    InterruptedFitWarning
        If Ctrl-C ends training: the last whole epoch is kept and ``fit`` finished.

    Notes
    -----
    Training ascends the sum of log p(v_i | the user's other ratings), as [3]_ for
    lattices, instead of contrastive divergence as in [1]_; levels are ordered as in
    [2]_. Cost per epoch: about 6 n_components n_levels numbers per rating. The training
    ratings are kept, and pickled. Limits: when ratings were given plays no part; items
    are known by their ratings alone.

    References
    ----------
    .. [1] Salakhutdinov, Mnih, Hinton (2007), Restricted Boltzmann machines for
       collaborative filtering, ICML.
    .. [2] Truyen, Phung, Venkatesh (2009), Ordinal Boltzmann machines for
       collaborative filtering, UAI.
    .. [3] Besag (1975), Statistical analysis of non-lattice data, The Statistician
       24(3).

    Examples
    --------
    >>> from scipy.sparse import csr_matrix
    >>> from skebm import RatingRBM
    >>> X = csr_matrix([[5, 5, 1, 0], [5, 4, 1, 1], [1, 1, 5, 5], [1, 0, 5, 4]])
    >>> model = RatingRBM(n_components=4, random_state=0).fit(X)
    >>> int(model.recommend(0, 1)[0])  # the only item that user 0 did not rate
    3
    """

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "over": [StrOptions({"both", "users"})],
        "learning_rate": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
        ],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "device": [str],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components=50,
        *,
        over="both",
        learning_rate="auto",
        batch_size=50,
        max_iter="auto",
        dropout=0.3,
        weight_decay=3.0,
        device="auto",
        random_state=None,
    ):
        self.n_components = n_components
        self.over = over
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.device = device
        self.random_state = random_state

    @with_callbacks
    @fit_context
    def fit(self, X, y=None):
        """Train the machines.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix
            A long DataFrame with the columns "user", "item" and "rating", one rating
            per row; or users by items, of shape (n_users, n_items): NaN is unrated in
            an array, and zero in a sparse matrix.
        y : Ignored
            For scikit-learn's signature.

        Returns
        -------
        self : RatingRBM
            The fitted estimator.
        """
        ratings = self._begin(X)
        self._begin_tasks(2)
        self._train(ratings)
        self._end_task("training")
        self._finish(ratings)
        self._end_task("means")
        return self._end_tasks()

    def _begin(self, X):
        """Forget the last fit; return the ratings; set labels, device and seed."""
        for name in ("energy_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        ratings = listed(self, X)
        self.users_, self.items_ = ratings.users, ratings.items
        self._set_device_and_seed()
        return ratings

    def _train(self, ratings):
        """Train the machine over users, and that over items if it is wanted."""
        self._levels = Levels.of(ratings.value)
        level, params = self._levels.code(ratings.value), self.get_params(False)
        shape = len(self.users_), len(self.items_), len(self._levels.values)
        self._by_user = RatingSide(ratings.user, ratings.item, level, shape)
        history = self._by_user.fit(params, self.device_, self._fit_seed)
        self.n_iter_, interrupted = history.n_iter, history.interrupted
        self.history_ = {"nll": np.asarray(history.history.get("nll", []))}
        self._by_item = None
        if self.over == "both":
            shape = shape[1], shape[0], shape[2]
            self._by_item = RatingSide(ratings.item, ratings.user, level, shape)
            history = self._by_item.fit(params, self.device_, self._fit_seed)
            interrupted |= history.interrupted
            self.history_["item_nll"] = np.asarray(history.history.get("nll", []))
        if interrupted:
            warnings.warn(
                "fit was interrupted: each machine is that of its last whole epoch. "
                "Fit again for the whole training, or lower max_iter.",
                InterruptedFitWarning,
                stacklevel=5,
            )

    def _finish(self, ratings):
        """Set the means and what readers of a fitted estimator expect."""
        self.levels_ = self._levels.values
        self.mean_ = float(ratings.value.mean())
        self._user_counts = np.bincount(ratings.user, minlength=len(self.users_))
        self._item_counts = np.bincount(ratings.item, minlength=len(self.items_))
        self.item_means_, self.user_means_ = (
            shrunk_means(ratings.value, place, len(labels), self.mean_)
            for place, labels in (
                (ratings.item, self.items_),
                (ratings.user, self.users_),
            )
        )
        machine = self._by_user.machine
        self.components_ = machine.weight.detach().cpu().numpy().T.copy()
        self.item_energy_ = None if self._by_item is None else self._by_item.machine
        self._n_features_out = self.n_components
        self.energy_ = machine
