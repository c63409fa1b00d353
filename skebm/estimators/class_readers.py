"""What a fitted classification RBM tells of rows and labels."""

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.base import (
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from skebm._check import check_bits, check_labels_seen, check_units
from skebm._torch import in_chunks, refuse_forked_process, to_numpy
from skebm.base import Fitting
from skebm.estimators.rbm_drawing import drawn

CHUNK = 64
"""Rows per chunk of the readers."""

ADVICE = "put a KBinsDiscretizer with one-hot codes before it"
"""On rows that are not bits at heart."""


class ClassReaders(
    ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, Fitting
):
    """The readers of a `ClassRBM` in ``energy_`` with labels ``classes_``."""

    def energy(self, X, y=None):
        """Return E(x) = -log sum_y exp(-E(x, y)), or E(x, y) where labels are given.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or None, default=None
            Labels seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,)
            Low means typical, float64.
        """
        machine, rows = self._machine(), self._rows(X)
        if y is None:
            e = self._measure(rows, machine.marginal)
        else:
            codes = self._codes(np.asarray(y).reshape(len(rows)))
            e = self._measure(np.column_stack([rows, codes]), machine)
        return e.astype(np.float32).astype(np.float64)

    def predict_log_proba(self, X):
        """Return log p(y | x) of every class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In nats, in the order of ``classes_``.
        """
        machine = self._machine()
        log_p = self._measure(
            self._rows(X), lambda x: machine.class_fields(x).log_softmax(1)
        )
        return log_softmax(log_p.astype(np.float32).astype(np.float64), axis=1)

    def predict_proba(self, X):
        """Return p(y | x) of every class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``; rows sum to one.
        """
        return np.exp(self.predict_log_proba(X))

    def decision_function(self, X):
        """Return the log-odds of the second of two classes, or log p(y | x) of many.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            The class with the largest value is the prediction.
        """
        log_p = self.predict_log_proba(X)
        return log_p if log_p.shape[1] > 2 else log_p[:, 1] - log_p[:, 0]

    def predict(self, X):
        """Return the likeliest labels.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Members of ``classes_``.
        """
        best = self.predict_log_proba(X).argmax(1)
        return self.classes_[best]

    def transform(self, X):
        """Return the probabilities of the hidden bits, p(h = 1 | x).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            The label summed out, in the floating type of X.
        """
        machine, rows = self._machine(), self._rows(X)
        return self._measure(rows, machine.hidden_mean_of_bits).astype(rows.dtype)

    def sample(self, n_samples=1, y=None, *, random_state=None):
        """Draw new rows, of one class if it is named.

        Exact up to 16 hidden bits; else each row is annealed from independent columns
        and moved by 100 Gibbs steps.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows, >= 1.
        y : label or None, default=None
            Member of ``classes_``: rows come from p(x | y); None draws the label too.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None takes the estimator's.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_features)
            Rows of bits.
        """
        machine = self._machine()
        if n_samples < 1:
            raise ValueError(f"n_samples must be >= 1; got n_samples={n_samples!r}.")
        rows = np.full((n_samples, self.n_features_in_ + 1), np.nan)
        if y is not None:
            rows[:, -1] = self._codes(np.array([y]))
        found = drawn(machine, rows, self._seed(random_state))
        return self._named(found[:, :-1])

    def _machine(self):
        """Return the fitted energy."""
        check_is_fitted(self)
        refuse_forked_process()
        return self.energy_

    def _rows(self, X):
        """Return X checked against the columns of ``fit``, in [0, 1]."""
        rows = check_units(self, X, reset=False, allow_nan=False)
        return check_bits(self, rows, ADVICE)

    def _measure(self, rows, function):
        """Return a function of rows, computed in double precision."""
        x = torch.from_numpy(rows).to(self.device_, torch.float64)
        with torch.inference_mode():
            return to_numpy(in_chunks(lambda chunk: (function(chunk),), CHUNK, x)[0])

    def _codes(self, y):
        """Return the places of labels among the classes."""
        return check_labels_seen(self, y)

    def __sklearn_is_fitted__(self):
        """Tell whether the last fit came to its end."""
        return hasattr(self, "energy_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
