"""The readers of every density, with a context and sequences beside the rows."""

from skebm.base import BaseEBM
from skebm.estimators.contexts import Given


class ConditionalReaders(BaseEBM):
    """The members of `BaseEBM` for rows that come with a context.

    ``context`` holds given features, ``lengths`` says where the sequences in X end. A
    subclass takes a `Given` in `_rows`.
    """

    def energy(self, X, context=None, lengths=None):
        """Return the energy of each row in its context; low means typical.

        E(v; u) + log Z(u): the free energy, measured from that of the context, so that
        rows with different contexts compare.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns seen in ``fit``.
        context : array-like of shape (n_samples, n_context) or None, default=None
            Given features of each row, with the columns seen in ``fit``.
        lengths : array-like of int of shape (n_sequences,) or None, default=None
            Lengths of the sequences in X, which sum to n_samples; None means that X
            is one sequence.

        Returns
        -------
        ndarray of shape (n_samples,)
            Float64, finite.
        """
        return super().energy(_given(X, context, lengths))

    def score_samples(self, X, context=None, lengths=None):
        """Return log p(v | u) of each row in its context.

        Parameters
        ----------
        X, context, lengths : array-like
            As in `energy`.

        Returns
        -------
        ndarray of shape (n_samples,)
            In nats, float64.
        """
        return super().score_samples(_given(X, context, lengths))

    def score(self, X, y=None, context=None, lengths=None):
        """Return the mean of log p(v | u) over the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : Ignored
            For scikit-learn's signature.
        context, lengths : array-like
            As in `energy`.

        Returns
        -------
        float
            Nats per row; comparable between models.
        """
        return super().score(_given(X, context, lengths))

    def decision_function(self, X, context=None, lengths=None):
        """Return score_samples(X, context, lengths) - offset_; negative means anomaly.

        Parameters
        ----------
        X, context, lengths : array-like
            As in `energy`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Signed margin, float64.
        """
        return super().decision_function(_given(X, context, lengths))

    def predict(self, X, context=None, lengths=None):
        """Return +1 for rows typical of their context and -1 for anomalies.

        Parameters
        ----------
        X, context, lengths : array-like
            As in `energy`.

        Returns
        -------
        ndarray of shape (n_samples,)
            +1 or -1.
        """
        return super().predict(_given(X, context, lengths))

    def fit_predict(self, X, y=None, context=None, lengths=None):
        """Fit, and return +1 or -1 for the training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : Ignored
            For scikit-learn's signature.
        context, lengths : array-like
            As in `energy`.

        Returns
        -------
        ndarray of shape (n_samples,)
            +1 or -1.
        """
        fitted = self.fit(X, y, context=context, lengths=lengths)
        return fitted.predict(X, context, lengths)

    def p_values(self, X, context=None, lengths=None):
        """Return conformal p-values: the share of normal rows at least as strange.

        Parameters
        ----------
        X, context, lengths : array-like
            As in `energy`.

        Returns
        -------
        ndarray of shape (n_samples,)
            In (0, 1]; small = anomalous. Uniform for normal rows that are exchangeable
            with the calibration rows; rows of one sequence are so only roughly.
        """
        return super().p_values(_given(X, context, lengths))

    def predict_fdr(self, X, q=0.05, context=None, lengths=None):
        """Return +1 or -1 such that at most a share q of the -1 are false, on average.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        q : float, default=0.05
            False discovery rate, in (0, 1).
        context, lengths : array-like
            As in `energy`.

        Returns
        -------
        ndarray of shape (n_samples,)
            +1 or -1; the call on a row depends on the other rows.
        """
        return super().predict_fdr(_given(X, context, lengths), q)

    def calibrate(self, X_clean, context=None, lengths=None):
        """Take p-values, and the "auto" threshold, from fresh normal rows.

        Parameters
        ----------
        X_clean : array-like of shape (n_samples, n_features)
            Normal rows; 19 or more, or no p-value can reach 0.05.
        context, lengths : array-like
            As in `energy`.

        Returns
        -------
        self : ConditionalReaders
            The same estimator, recalibrated.
        """
        return super().calibrate(_given(X_clean, context, lengths))

    def explain(self, X, context=None, lengths=None):
        """Return how much each column, now and before, adds to the energy of each row.

        Shapley values against 8 typical training rows; see `DeepEBM.explain`.

        Parameters
        ----------
        X, context, lengths : array-like
            As in `energy`.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_wide)
            The columns of X, those of the row before, ..., those of the row
            ``n_lags`` before, and those of the context. A DataFrame if X is one.
        """
        contributions = super().explain(_given(X, context, lengths))
        if not hasattr(X, "columns"):
            return contributions

        import pandas as pd

        names = self._wide_names(list(X.columns))
        return pd.DataFrame(contributions, index=X.index, columns=names)


def _given(X, context, lengths):
    """Return the arguments as one; readers hand it to each other."""
    return X if isinstance(X, Given) else Given(X, context, lengths)
