"""A conditional RBM's energies, draws and next rows, with numpy at both ends."""

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skebm._check import check_rows, take_rows
from skebm._torch import in_chunks, make_generator, refuse_forked_process, to_numpy
from skebm.estimators.conditional_readers import ConditionalReaders
from skebm.estimators.contexts import Given, checked_lengths, lagged
from skebm.estimators.draws import check_n_samples
from skebm.partition import log_partition_given
from skebm.samplers import draw_given
from skebm.samplers.conditional_rbm import visible_states

CHUNK = 256
"""Rows per chunk of `energy`."""


class ConditionalDensity(ConditionalReaders):
    """p(v | u) of a `ContextRBM` in ``energy_``.

    Checked rows are wide: the values of the units now, those of every lag (NaN where a
    sequence has none), and the scaled context.
    """

    def sample(self, n_samples=1, *, context=None, prefix=None, random_state=None):
        """Draw new rows.

        With ``n_lags=0`` the rows are drawn each from its context. Else they are one
        sequence, each row drawn given those before it.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows, >= 1.
        context : array-like of shape (n_samples or 1, n_context) or None, default=None
            Given features of each row, or of all of them.
        prefix : array-like of shape (n_before, n_features) or None, default=None
            Rows that the sequence goes on from; None starts a sequence.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None takes the estimator's.

        Returns
        -------
        ndarray or DataFrame of shape (n_samples, n_features)
            Rows; a DataFrame if ``fit`` saw named columns.

        Raises
        ------
        ValueError
            If n_samples < 1, a prefix comes with ``n_lags=0``, or the context is not
            that of ``fit``.
        """
        check_is_fitted(self)
        refuse_forked_process()
        check_n_samples(n_samples)
        if context is not None and len(context) == 1:
            context = take_rows(context, np.zeros(n_samples, dtype=int))
        given = self._context.encode(context, n_samples)
        generator = make_generator(self._seed(random_state), self.device_)
        if not self.n_lags:
            if prefix is not None:
                raise ValueError(
                    "Got a prefix with n_lags=0, where no row depends on the rows "
                    "before it. Pass n_lags=1 or more, or leave it out."
                )
            return self._named(self._columns.decode(self._drawn(given, generator)))
        past = self._latest(prefix)
        rows = []
        for row in given:
            before = np.concatenate([past.ravel(), row])[None]
            rows.append(self._drawn(before, generator))
            past = np.concatenate([rows[-1], past[:-1]])
        return self._named(self._columns.decode(np.concatenate(rows)))

    def next_probabilities(self, X=None, context=None, lengths=None):
        """Return the probabilities of the row that comes next.

        For one visible column of codes or bits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or None, default=None
            One or more sequences; None stands for one without rows.
        context : array-like of shape (n_sequences, n_context) or None, default=None
            Given features of the next row of each sequence. With ``n_lags=0`` it
            alone says how many there are.
        lengths : array-like of int of shape (n_sequences,) or None, default=None
            Lengths of the sequences in X; None means one.

        Returns
        -------
        ndarray of shape (n_sequences, n_codes)
            p(v = k | the last rows and the context).

        Raises
        ------
        ValueError
            If the model has several visible columns, or a real one.
        """
        check_is_fitted(self)
        refuse_forked_process()
        states = visible_states(self.energy_)
        if states is None or states.shape[1] > 1:
            raise ValueError(
                f"next_probabilities needs one column of codes or bits, but the model "
                f"has {self.n_features_in_} columns of {self._columns.units!r}. Use "
                "sample, or score_samples on the rows in question."
            )
        before = self._before_next(X, context, lengths)
        u = self._features(before)
        with torch.inference_mode():
            weights = self.energy_.visible_log_weights(u, states)
        return to_numpy(weights.softmax(1))

    def _before_next(self, X, context, lengths):
        """Return the lags and contexts of the rows that come next."""
        if not self.n_lags:
            if X is not None:
                raise ValueError(
                    "Got X with n_lags=0, where the next row depends on its context "
                    "alone. Pass context=, or n_lags=1 or more to the constructor."
                )
            n = 1 if context is None else len(context)
            return self._context.encode(context, n)
        if X is None:
            past = self._latest(None)[None]
        else:
            X = check_rows(self, X, reset=False)
            ends = np.cumsum(checked_lengths(lengths, len(X), self.n_lags))
            parts = np.split(X, ends[:-1])
            past = np.stack([self._latest(part) for part in parts])
        given = self._context.encode(context, len(past))
        return np.concatenate([past.reshape(len(past), -1), given], 1)

    def _latest(self, rows):
        """Return the encoded last rows, newest first, shape (n_lags, d)."""
        found = np.full((self.n_lags, self.n_features_in_), np.nan)
        if rows is not None:
            rows = check_rows(self, rows, reset=False)
            last = self._columns.encode(rows, type(self).__name__)[::-1][: self.n_lags]
            found[: len(last)] = last
        return found

    def _drawn(self, before, generator):
        """Return values of the units drawn given lags and contexts, shape (n, d)."""
        with torch.no_grad():
            u = self._features(before)
            return to_numpy(draw_given(self.energy_, u, generator=generator))

    def _rows(self, X):
        """Return wide rows, checked against ``fit``; takes a `Given` or X alone."""
        given = X if isinstance(X, Given) else Given(X)
        return self._wide(given, check_rows(self, given.X, reset=False))

    def _wide(self, given, rows):
        """Return wide rows of checked ones."""
        values = self._columns.encode(rows, type(self).__name__)
        lengths = checked_lengths(given.lengths, len(rows), self.n_lags)
        context = self._context.encode(given.context, len(rows))
        return np.concatenate(
            [values, lagged(values, lengths, self.n_lags), context], 1
        )

    def _wide_names(self, names):
        """Return the names of wide columns, given those of X."""
        lags = [f"{n}, lag {k + 1}" for k in range(self.n_lags) for n in names]
        known = self._context.names
        own = known or [f"context {j}" for j in range(self._context.n)]
        return [*names, *lags, *own]

    def _features(self, before):
        """Return u for lags and contexts, (n, n_context_), on the device.

        For every lag the statistics of that row, zeros where it is missing, and the
        share of its columns that are.
        """
        d = self.n_features_in_
        x = torch.from_numpy(np.ascontiguousarray(before))
        parts = []
        units = clone(self._columns.units).build(d).double()
        with torch.no_grad():
            for lag in range(self.n_lags):
                row = x[:, lag * d : (lag + 1) * d]
                missing = row.isnan().to(row).mean(1, keepdim=True)
                parts += [units.statistics(row).nan_to_num(0.0), missing]
        parts.append(x[:, self.n_lags * d :])
        return torch.cat(parts, 1).to(self.device_)

    def _joined(self, wide):
        """Return u and v side by side in double precision on the device."""
        d = self.n_features_in_
        v = torch.from_numpy(np.ascontiguousarray(wide[:, :d])).to(self.device_)
        return torch.cat([self._features(wide[:, d:]), v], 1)

    def _measure(self, rows):
        """Return E(v; u) + log Z(u) of wide rows, shape (n_samples,).

        In double precision, rounded to single: the place of a row in its chunk can
        change the last bits of a matrix product.
        """
        refuse_forked_process()
        with torch.inference_mode():
            x = self._joined(rows)
            e = in_chunks(lambda chunk: (self.energy_(chunk),), CHUNK, x)[0]
            e = e + self._log_partition(self.energy_.split(x)[0])
        return to_numpy(e.clamp(max=torch.finfo(torch.float32).max).float())

    def _log_partition(self, u):
        """Return log Z(u), shape (n,), each context once."""
        if not u.shape[1]:
            one = log_partition_given(self.energy_, u[:1], seed=self._fit_seed)
            return one.expand(len(u))
        contexts, place = torch.unique(u, dim=0, return_inverse=True)
        return log_partition_given(self.energy_, contexts, seed=self._fit_seed)[place]

    def _calibration_rows(self, rows):
        """Training rows are not kept, so no row is known to be one."""
        return np.zeros(len(rows), dtype=bool)
