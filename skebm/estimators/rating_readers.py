"""What fitted machines of ratings tell: expectations, recommendations, tastes."""

from numbers import Integral

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from skebm._check import check_ratings
from skebm._torch import refuse_forked_process, to_numpy
from skebm.base import Fitting
from skebm.energies import Ratings
from skebm.estimators.rating_side import log_levels
from skebm.estimators.rating_table import (
    is_long,
    places_of,
    read_long,
    refuse_long,
)


class RatingReaders(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Fitting):
    """The readers of the machines in ``_by_user`` and ``_by_item``."""

    def predict(self, user, item=None):
        """Return expected ratings, each given the user's other ratings.

        Parameters
        ----------
        user : label, array-like of shape (n,), or table of shape (n, n_items)
            Users of ``fit`` by their labels; or new users, each a row of ratings like
            those of ``fit``, predicted by the machine over users alone.
        item : label, array-like of shape (n,) or None, default=None
            The item of each user or row. None, with dense rows alone, means every
            item.

        Returns
        -------
        ndarray of shape (n,) or (n, n_items)
            Expected ratings, float64. Unknown users and those without ratings get
            the item's mean, unknown items the user's mean, both ``mean_``.

        Raises
        ------
        ValueError
            If items are missing where they are needed, or lengths differ.
        """
        self._ready()
        if np.ndim(user) == 2:
            return self._predict_rows(user, item)
        if item is None:
            raise ValueError(
                "predict got users without items. Pass predict(user, item), or rows of "
                "ratings: Reshape your data to (n_users, n_items)."
            )
        user, item = np.broadcast_arrays(np.asarray(user), np.asarray(item))
        places = (places_of(a.ravel(), known) for a, known in self._labels(user, item))
        return self._expected(*places).reshape(user.shape)

    def level_proba(self, user, item):
        """Return p(rating = levels_[k] | the user's other ratings), machines averaged.

        Parameters
        ----------
        user, item : label or array-like of shape (n,)
            Pairs of labels of ``fit``.

        Returns
        -------
        ndarray of shape (n, n_levels)
            In the order of ``levels_``; rows sum to one.

        Raises
        ------
        ValueError
            If a user or an item was not in ``fit``.
        """
        self._ready()
        user, item = np.broadcast_arrays(np.atleast_1d(user), np.atleast_1d(item))
        row, column = (places_of(a, known) for a, known in self._labels(user, item))
        if min(row.min(), column.min()) < 0:
            raise ValueError(
                "Got users or items that were not in fit; their ratings have no "
                "distribution. Use predict, which falls back to means."
            )
        return self._proba(row, column)

    def recommend(self, user, n=10, *, temperature=0.0, random_state=None):
        """Return unrated items, best first or drawn.

        Items come without replacement from p(i) proportional to
        exp(expected rating / temperature).

        Parameters
        ----------
        user : label, array-like of shape (n_users,), or table (n_users, n_items)
            As in `predict`; unknown labels get the items with the best means.
        n : int, default=10
            Items per user, >= 1.
        temperature : float, default=0.0
            0 ranks by expected rating; larger draws more freely; infinity draws
            uniformly.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None takes the estimator's.

        Returns
        -------
        ndarray of shape (n,) or (n_users, n)
            Labels of items; one row for each user unless a single label is given.

        Raises
        ------
        ValueError
            If a user has fewer than n unrated items.
        """
        self._ready()
        if not isinstance(n, Integral) or not temperature >= 0 or n < 1:
            raise ValueError(
                f"Got n={n!r}, temperature={temperature!r}, but expected an "
                "integer n >= 1 and temperature >= 0."
            )
        expected, rated = self._all_items(user)
        if n > (~rated).sum(1).min():
            raise ValueError(
                f"Got n={n}, but a user has only {(~rated).sum(1).min()} unrated "
                "items. Ask for fewer."
            )
        value = expected
        if temperature > 0:
            rng = np.random.default_rng(self._seed(random_state))
            value = expected / temperature + rng.gumbel(size=expected.shape)
        order = np.argsort(-np.where(rated, -np.inf, value), 1, kind="stable")[:, :n]
        found = np.asarray(self.items_)[order]
        return found[0] if np.ndim(user) == 0 else found

    def score(self, X, y=None):
        """Return R^2 of the expected ratings.

        Parameters
        ----------
        X : DataFrame, array-like or sparse matrix
            Ratings in one of the forms of ``fit``: of a long table each is predicted
            for its user of ``fit``; rows of a table are new users, each rating
            predicted from the others of its row.
        y : Ignored
            For scikit-learn's signature.

        Returns
        -------
        float
            1 is perfect, 0 as good as the mean of these ratings.
        """
        self._ready()
        if is_long(X):
            user, item, value = read_long(X)
            return float(r2_score(value, self.predict(user, item)))
        row, item, value, n_rows = check_ratings(self, X, reset=False)
        ratings = self._coded(row, item, value, n_rows)
        return float(r2_score(value, self._of_rows(ratings, row, item)))

    def energy(self, X):
        """Return the energy of rows of ratings under the machine over users.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_items)
            Rows of ratings.

        Returns
        -------
        ndarray of shape (n_samples,)
            E of the ratings given which items are rated; low means typical.
        """
        self._ready()
        ratings = self._rows(X)
        with torch.no_grad():
            return to_numpy(self.energy_.energies(self._tensors(ratings)))

    def transform(self, X):
        """Return the tastes of users: p(h = 1 | a row's ratings).

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_items)
            Rows of ratings.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            Under the machine over users, float64.
        """
        self._ready()
        ratings = self._rows(X)
        return to_numpy(self._fields(ratings).sigmoid())

    def _ready(self):
        """Refuse to read before ``fit``, and in a forked process."""
        check_is_fitted(self)
        refuse_forked_process()

    def _rows(self, X):
        """Return the coded ratings of new users."""
        refuse_long(X)
        return self._coded(*check_ratings(self, X, reset=False))

    def _labels(self, user, item):
        """Return users and items with the labels of ``fit``."""
        return (user, self.users_), (item, self.items_)

    def _proba(self, row, column):
        """Return the probabilities of the levels of known pairs, (m, n_levels)."""
        sides = [np.exp(self._by_user.log_levels(row, column))]
        if self._by_item is not None:
            sides.append(np.exp(self._by_item.log_levels(column, row)))
        return sum(sides) / len(sides)

    def _mean_level(self, p):
        """Return the expected levels, (m,); a matrix product would look at m."""
        return (p * self.levels_).sum(1)

    def _expected(self, row, column):
        """Return the expected ratings of places, -1 for unknown ones, shape (m,)."""
        knows_user = (row >= 0) & (self._user_counts[row] > 0)
        knows_item = (column >= 0) & (self._item_counts[column] > 0)
        guess = np.where(knows_item, self.item_means_[column], self.mean_)
        guess = np.where(knows_user & ~knows_item, self.user_means_[row], guess)
        both = knows_user & knows_item
        guess[both] = self._mean_level(self._proba(row[both], column[both]))
        return guess

    def _predict_rows(self, X, item):
        """Return the expected ratings of rows of ratings, of one item each or all."""
        if item is None and issparse(X):
            raise ValueError(
                "predict of all items is dense, and got sparse rows. Pass one item for "
                "each row, or rows in an array with NaN where unrated."
            )
        ratings = self._rows(X)
        n, d = ratings.n_rows, len(self.items_)
        if item is None:
            row, column = np.divmod(np.arange(n * d), d)
            return self._of_rows(ratings, row, column).reshape(n, d)
        column = places_of(np.asarray(item).reshape(n), self.items_)
        if column.min() < 0:
            raise ValueError("Got items that were not in fit; rows rate those alone.")
        return self._of_rows(ratings, np.arange(n), column)

    def _of_rows(self, ratings, row, column):
        """Return the expected ratings of pairs of new rows and items, shape (m,)."""
        own = np.full((ratings.n_rows, len(self.items_)), -1)
        own[ratings.row, ratings.item] = ratings.level
        p = np.exp(
            log_levels(
                self.energy_, self._fields(ratings), row, column, own[row, column]
            )
        )
        others = (own >= 0).sum(1)[row] - (own[row, column] >= 0)
        known = (others > 0) & (self._item_counts[column] > 0)
        return np.where(known, self._mean_level(p), self.item_means_[column])

    def _all_items(self, user):
        """Return the expected ratings of all items, and which are rated."""
        d = len(self.items_)
        if np.ndim(user) == 2:
            ratings = self._rows(user)
            row, column = np.divmod(np.arange(ratings.n_rows * d), d)
            expected = self._of_rows(ratings, row, column)
            rated = np.zeros((ratings.n_rows, d), dtype=bool)
            rated[ratings.row, ratings.item] = True
            return expected.reshape(-1, d), rated
        place = places_of(np.atleast_1d(user), self.users_)
        pairs = np.repeat(place, d), np.tile(np.arange(d), len(place))
        side, rated = self._by_user, np.zeros((len(self.users_) + 1, d), dtype=bool)
        rated[side.row, side.column] = True
        return self._expected(*pairs).reshape(-1, d), rated[place]

    def _coded(self, row, item, value, n_rows):
        """Return ratings of rows as levels."""
        return Ratings(row, item, self._levels.code(value), n_rows)

    def _tensors(self, ratings):
        """Return a list of ratings as tensors on the device."""
        lists = (torch.from_numpy(a).to(self.device_) for a in ratings[:3])
        return Ratings(*lists, ratings.n_rows)

    def _fields(self, ratings):
        """Return f of rows of ratings, shape (n_rows, n_components)."""
        with torch.no_grad():
            return self.energy_.hidden_fields(self._tensors(ratings))

    def __sklearn_is_fitted__(self):
        """Tell whether the last fit came to its end."""
        return hasattr(self, "energy_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        return tags
