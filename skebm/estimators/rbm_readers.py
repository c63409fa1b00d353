"""What a fitted RBM gives: features, reconstructions, imputations, draws."""

from abc import abstractmethod

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skebm._torch import (
    in_chunks,
    make_generator,
    refuse_forked_process,
    to_numpy,
)
from skebm.estimators.draws import check_n_samples
from skebm.estimators.gibbs_density import GibbsDensity
from skebm.estimators.rbm_drawing import chains_of, drawn, imputed
from skebm.estimators.scaling import given_columns

CHUNK = 256
"""Rows per chunk of `energy` and `transform`."""


class RBMReaders(ClassNamePrefixFeaturesOutMixin, TransformerMixin, GibbsDensity):
    """The readers of an RBM in ``energy_`` beyond those of every density.

    A subclass maps checked columns to the values of its units in `_encode` and back in
    `_decode`.
    """

    @abstractmethod
    def _encode(self, X, *, reset):
        """Return X in the values of the units, shape (n, d), NaN where missing."""

    def _decode(self, rows):
        """Return rows of the units' values as rows like those of ``fit``."""
        return self._named(rows)

    @abstractmethod
    def _tensor(self, rows):
        """Return encoded rows in single precision on the device."""

    def transform(self, X):
        """Return the probabilities of the hidden bits, p(h = 1 | v).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows; missing entries are imputed first.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            In the floating type of X.
        """
        check_is_fitted(self)
        rows = self._encode(X, reset=False)
        return self._mean_hiddens(self._filled(rows)).astype(rows.dtype)

    def gibbs(self, X):
        """Take one step of block Gibbs sampling: h given v, then v given h.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to start from.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_features)
            New rows; each call draws anew.
        """
        check_is_fitted(self)
        v = self._tensor(self._filled(self._encode(X, reset=False))).double()
        if not hasattr(self, "random_state_"):
            self.random_state_ = check_random_state(self.random_state)
        generator = make_generator(self._seed(self.random_state_), self.device_)
        return self._decode(to_numpy(self.energy_.gibbs(v, generator=generator)))

    def reconstruct(self, X):
        """Return the visible row that the hidden means of each row point to.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_features)
            Probabilities of bits, means of numbers, likeliest codes.
        """
        check_is_fitted(self)
        v = self._tensor(self._filled(self._encode(X, reset=False))).double()
        fields = self.energy_.visible_fields(self.energy_.hidden_mean(v))
        return self._decode(to_numpy(self.energy_.layer.predict(fields)))

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
            Probabilities of bits, means of numbers, likeliest codes; observed entries
            as they are.
        """
        check_is_fitted(self)
        rows = self._encode(X, reset=False)
        return self._decode(self._filled(rows, random_state))

    def sample(self, n_samples=1, *, given=None, random_state=None):
        """Draw new rows of the fitted density.

        Exact up to 16 hidden units; else each row is annealed from independent columns
        and moved by 100 Gibbs steps.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows, >= 1.
        given : dict or None, default=None
            Column (name or place) to value: rows come from the density of the other
            columns given these.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None takes the estimator's.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_features)
            Rows, given columns included.
        """
        check_is_fitted(self)
        refuse_forked_process()
        check_n_samples(n_samples)
        rows = np.repeat(self._given_row(given or {}), n_samples, 0)
        return self._decode(drawn(self.energy_, rows, self._seed(random_state)))

    def _run_chains(self, n_draws, seed):
        """Run chains of block Gibbs over the columns."""
        chains = chains_of(self.energy_, n_draws, seed)
        return chains, self._column_names(), self.calibration_energy_

    def _given_row(self, given):
        """Return one encoded row with the given values, NaN elsewhere, shape (1, d)."""
        names = getattr(self, "feature_names_in_", None)
        n = self.n_features_in_
        places, _, values = given_columns(given, names, np.zeros(n), np.ones(n))
        row = np.full((1, n), np.nan)
        row[0, places] = values
        return self._encode(self._named(row), reset=False)

    def _filled(self, rows, random_state=None):
        """Return encoded rows with missing entries at their expectations."""
        source = self._fit_seed if random_state is None else random_state
        return imputed(self.energy_, rows, self._seed(source))

    def _mean_hiddens(self, v):
        """Return p(h = 1 | v) of complete encoded rows, or of a single one."""
        if v.ndim == 1:
            return self._mean_hiddens(v[None])[0]
        refuse_forked_process()
        with torch.inference_mode():
            hidden = in_chunks(
                lambda rows: (self.energy_.hidden_mean(rows),),
                CHUNK,
                self._tensor(v).double(),
            )
        return to_numpy(hidden[0])

    def _sample_hiddens(self, v, rng):
        """Return hidden bits of rows drawn by a RandomState: scikit-learn's method."""
        p = self._mean_hiddens(v)
        return rng.uniform(size=p.shape) < p
