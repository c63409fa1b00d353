"""What a fitted joint energy tells of rows and labels."""

from abc import ABC, abstractmethod

import numpy as np
from scipy.special import log_softmax
from sklearn.base import (
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from skebm._labels import check_labels_seen
from skebm._torch import refuse_forked_process
from skebm.base import Fitting
from skebm.estimators.draws import check_n_samples


class ClassReaders(
    ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, Fitting, ABC
):
    """The readers of an energy of rows and labels.

    ``energy_`` has ``class_energies``: E(x, y), ``log_proba``: log p(y | x), and
    ``features``; a subclass fits it with the labels ``classes_``.
    """

    @abstractmethod
    def _rows(self, X):
        """Return X checked against the columns of ``fit``."""

    @abstractmethod
    def _row_energy(self, x):
        """Return E(x) of rows as the energy takes them, the label summed out."""

    @abstractmethod
    def _measure(self, rows, function):
        """Return a function of rows as the energy takes them, in double precision."""

    @abstractmethod
    def _drawn(self, n_samples, place, seed):
        """Return new rows, of the class at ``place`` unless that is None."""

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
        energy, rows = self._energy(), self._rows(X)
        if y is None:
            e = self._measure(rows, self._row_energy)
        else:
            y = np.asarray(y)
            if y.shape != (len(rows),):
                raise ValueError(
                    f"Got y of shape {y.shape} for {len(rows)} rows. Pass a label for "
                    "each row."
                )
            codes = self._codes(y)
            e = self._measure(rows, energy.class_energies)[np.arange(len(rows)), codes]
        return in_single(e)

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
        energy, rows = self._energy(), self._rows(X)
        log_p = self._measure(rows, energy.log_proba)
        return log_softmax(in_single(log_p), axis=1)

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
        """Return the features that the classes are read from.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_outputs)
            Hidden bits or units of the last hidden layer, in the floating type of X.
        """
        energy, rows = self._energy(), self._rows(X)
        return in_single(self._measure(rows, energy.features)).astype(rows.dtype)

    def sample(self, n_samples=1, y=None, *, random_state=None):
        """Draw new rows, of one class if it is named.

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
            In the units of X.
        """
        self._energy()
        check_n_samples(n_samples)
        place = None if y is None else int(self._codes(np.array([y]))[0])
        return self._named(self._drawn(n_samples, place, self._seed(random_state)))

    def _energy(self):
        """Return the fitted energy."""
        check_is_fitted(self)
        refuse_forked_process()
        return self.energy_

    def _codes(self, y):
        """Return the places of labels among the classes."""
        return check_labels_seen(self, y)

    def __sklearn_is_fitted__(self):
        """Tell whether the last fit came to its end."""
        return hasattr(self, "energy_")


def in_single(values):
    """Return numbers rounded to single precision, as float64.

    The place of a row in its chunk can change the last bits of a matrix product.

    Parameters
    ----------
    values : ndarray
        In double precision.

    Returns
    -------
    ndarray
        Of the same shape, finite.
    """
    largest = np.finfo(np.float32).max
    return np.clip(values, -largest, largest).astype(np.float32).astype(np.float64)
