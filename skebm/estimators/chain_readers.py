"""What a fitted chain of labels tells of sequences."""

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from skebm._check import check_units
from skebm._labels import check_labels_seen
from skebm._torch import (
    in_chunks,
    make_generator,
    refuse_forked_process,
    to_numpy,
)
from skebm.base import Fitting
from skebm.estimators.draws import check_n_samples
from skebm.estimators.scaling import scaled
from skebm.estimators.sequences import flattened, flattened_labels, with_neighbors

ROWS = 64
"""Rows per chunk of the network."""

SEQUENCES = 32
"""Sequences per chunk of the recursions."""


class ChainReaders(ClassifierMixin, Fitting):
    """The readers of a `Chain` in ``energy_`` with labels ``classes_``.

    A subclass fits ``location_``, ``scale_`` and ``device_`` too, and has the parameter
    ``window``.
    """

    def energy(self, X, y=None):
        """Return E(x, y), or E(x) = -log Z(x) where no labels are given.

        Parameters
        ----------
        X : list of array-like of shape (length, n_features)
            Sequences, or one of the other forms that `fit` takes.
        y : list of array-like of shape (length,) or None, default=None
            Their labels, seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_sequences,)
            Low means that the labels fit, float64.
        """
        if y is None:
            return -self.log_partition(X)
        u, layout = self._unaries(X)
        return self._joint(u, layout, self._codes(y, layout))

    def log_partition(self, X):
        """Return log Z(x) = log sum_y exp(-E(x, y)) of every sequence.

        Parameters
        ----------
        X : list of array-like of shape (length, n_features)
            Sequences.

        Returns
        -------
        ndarray of shape (n_sequences,)
            In nats, exact.
        """
        return self._log_partition(*self._unaries(X))

    def score_samples(self, X, y=None):
        """Return log p(y | x) of every sequence.

        Parameters
        ----------
        X : list of array-like of shape (length, n_features)
            Sequences.
        y : list of array-like of shape (length,) or None, default=None
            Their labels, seen in ``fit``; None takes those that `predict` returns.

        Returns
        -------
        ndarray of shape (n_sequences,)
            In nats, at most 0.
        """
        u, layout = self._unaries(X)
        codes = self._decode(u, layout) if y is None else self._codes(y, layout)
        joint = self._joint(u, layout, codes)
        return np.minimum(-joint - self._log_partition(u, layout), 0.0)

    def predict(self, X):
        """Return the likeliest labels of every sequence as a whole (Viterbi).

        Parameters
        ----------
        X : list of array-like of shape (length, n_features)
            Sequences.

        Returns
        -------
        list of ndarray of shape (length,)
            Members of ``classes_``; an array of shape (n, length) for a 3-D X, of
            shape (n_samples,) for a 2-D X.
        """
        u, layout = self._unaries(X)
        return layout.restore(self.classes_[self._decode(u, layout)])

    def predict_marginals(self, X):
        """Return p(y_t | x) of every label at every row, all other labels summed out.

        The labels with the largest marginals make the fewest errors on average; those
        of `predict` are the likeliest together.

        Parameters
        ----------
        X : list of array-like of shape (length, n_features)
            Sequences.

        Returns
        -------
        list of ndarray of shape (length, n_classes)
            In the order of ``classes_``; rows sum to one. Arrays for a 3-D and a 2-D X,
            as in `predict`.
        """
        u, layout = self._unaries(X)
        chain = self.energy_
        return layout.restore(
            self._by_row(lambda u, n: chain.marginals(u, n).permute(2, 0, 1), u, layout)
        )

    def sample_labels(self, X, n_samples=1, *, random_state=None):
        """Draw labelings from p(y | x), exactly.

        Parameters
        ----------
        X : list of array-like of shape (length, n_features)
            Sequences.
        n_samples : int, default=1
            Labelings of every sequence, >= 1.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None takes the estimator's.

        Returns
        -------
        list of n_samples labelings
            Each in the form of `predict`.
        """
        check_n_samples(n_samples)
        u, layout = self._unaries(X)
        chain = self.energy_
        generator = make_generator(self._seed(random_state), u.device)
        drawn = [
            self._by_row(
                lambda u, n: chain.draw(u, n, generator=generator).T, u, layout
            )
            for _ in range(n_samples)
        ]
        return [layout.restore(self.classes_[codes.astype(int)]) for codes in drawn]

    def score(self, X, y):
        """Return the share of rows whose label `predict` finds.

        Parameters
        ----------
        X : list of array-like of shape (length, n_features)
            Sequences.
        y : list of array-like of shape (length,)
            Their labels.

        Returns
        -------
        float
            In [0, 1].
        """
        u, layout = self._unaries(X)
        truth = np.asarray(flattened_labels(y, layout))
        return float(np.mean(self.classes_[self._decode(u, layout)] == truth))

    def _unaries(self, X):
        """Return the network's output at every row, and how the sequences lie."""
        check_is_fitted(self)
        refuse_forked_process()
        table, layout = flattened(type(self).__name__, X)
        rows = check_units(self, table, reset=False, allow_nan=False)
        if layout.form == "rows" and not self._fitted_to_rows:
            raise ValueError(
                f"Got one table of {len(rows)} rows, but fit saw sequences. Pass [X] "
                "for one sequence, or X[:, None] for sequences of one row each."
            )
        x = torch.from_numpy(self._features(rows, layout)).to(self.device_)
        network = self.energy_.network
        with torch.inference_mode():
            return in_chunks(lambda chunk: (network(chunk),), ROWS, x)[0], layout

    def _features(self, rows, layout):
        """Return what the network sees of checked rows, float64."""
        z = scaled(rows, self.location_, self.scale_)
        return with_neighbors(z, layout, self.window) if self.window else z

    def _codes(self, y, layout):
        """Return the codes of labels, one under another."""
        labels = np.asarray(flattened_labels(y, layout))
        return check_labels_seen(self, labels.reshape(layout.lengths.sum()))

    def _joint(self, u, layout, codes):
        """Return E(x, y) of every sequence."""
        codes, chain = torch.from_numpy(codes).to(u.device), self.energy_

        def function(u, n, codes):
            return chain.joint(u, codes.clamp(min=0).T, n)

        return self._by_sequence(function, u, layout, codes)

    def _log_partition(self, u, layout):
        """Return log Z(x) of every sequence."""
        return self._by_sequence(self.energy_.log_normalizer, u, layout)

    def _decode(self, u, layout):
        """Return the codes of the likeliest labels, one under another."""
        chain = self.energy_
        return self._by_row(lambda u, n: chain.decode(u, n).T, u, layout).astype(int)

    def _by_sequence(self, function, u, layout, *columns):
        """Return a number per sequence, computed in chunks of one size."""
        found = np.empty(len(layout.lengths))
        for members, _, values in _in_groups(function, u, layout, *columns):
            found[members] = to_numpy(values)
        return found

    def _by_row(self, function, u, layout):
        """Return numbers per row, one under another, computed in chunks of one size."""
        found = None
        for members, places, values in _in_groups(function, u, layout):
            values = to_numpy(values)
            if found is None:
                found = np.empty((len(u), *values.shape[2:]))
            inside = np.arange(places.shape[1]) < layout.lengths[members, None]
            found[places[inside]] = values[inside]
        return found

    def __sklearn_is_fitted__(self):
        """Tell whether the last fit came to its end."""
        return hasattr(self, "energy_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags


def _in_groups(function, u, layout, *columns):
    """Yield members, places of rows and a function's values of groups of sequences."""
    lengths = torch.from_numpy(layout.lengths).to(u.device)

    def time_first(u, n, *rest):
        return (function(u.permute(1, 2, 0).contiguous(), n, *rest),)

    for members, places in layout.groups(SEQUENCES):
        index = torch.from_numpy(places).to(u.device)
        parts = [u[index], lengths[members], *(column[index] for column in columns)]
        with torch.inference_mode():
            yield members, places, in_chunks(time_first, SEQUENCES, *parts)[0]
