"""A conditional RBM's energies, draws and next rows, with numpy at both ends."""

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skebm._check import check_rows, take_rows
from skebm._torch import in_chunks, make_generator, refuse_forked_process, to_numpy
from skebm.estimators.conditional_readers import ConditionalReaders
from skebm.estimators.contexts import Given, checked_lengths, lagged
from skebm.estimators.drawing import diagnosis, warn_unless_mixed
from skebm.estimators.draws import check_n_samples
from skebm.estimators.rbm_drawing import chains_of
from skebm.estimators.scaling import given_columns
from skebm.partition import log_partition_given
from skebm.samplers import draw_given, draw_missing
from skebm.samplers.conditional_rbm import visible_states

CHUNK = 256
"""Rows per chunk of `energy`."""


class ConditionalDensity(ConditionalReaders):
    """p(v | u) of a `ContextRBM` in ``energy_``.

    Checked rows are wide: the values of the units now, those of every lag (NaN where a
    sequence has none), and the scaled context.
    """

    def sample(
        self, n_samples=1, *, given=None, context=None, prefix=None, random_state=None
    ):
        """Draw new rows.

        With ``n_lags=0`` the rows are drawn each from its context. Else they are one
        sequence, each row drawn given those before it.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows, >= 1.
        given : dict or None, default=None
            Column (name or place) to value, the same in every row: the other columns
            are drawn given these too.
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
            If n_samples < 1, a prefix comes with ``n_lags=0``, the context is not that
            of ``fit``, or ``given`` names an unknown or every column.
        """
        check_is_fitted(self)
        refuse_forked_process()
        check_n_samples(n_samples)
        if context is not None and len(context) == 1:
            context = take_rows(context, np.zeros(n_samples, dtype=int))
        places, exact, row = self._given_row(given)
        contexts = self._context.encode(context, n_samples)
        generator = make_generator(self._seed(random_state), self.device_)
        if not self.n_lags:
            self._refuse_prefix(prefix)
            found = self._drawn(contexts, row, generator)
        else:
            found = self._sequence(contexts, prefix, row, generator)
        rows = self._columns.decode(found)
        rows[:, places] = exact
        return self._named(rows)

    def diagnose(self, n_draws=200, *, context=None, prefix=None, random_state=None):
        """Run 64 chains of block Gibbs in one context and tell whether they mix.

        Parameters
        ----------
        n_draws : int, default=200
            Draws of each chain, >= 4.
        context : array-like of shape (1, n_context) or None, default=None
            Given features of the row.
        prefix : array-like of shape (n_before, n_features) or None, default=None
            Rows before it; None starts a sequence.
        random_state : int, RandomState or None, default=None
            Seed of the chains; None takes the estimator's.

        Returns
        -------
        DataFrame of shape (n_features + 1, 6)
            One line per column and one for the energy; see `DeepEBM.diagnose`.
            ``energy_gap`` is NaN: the rows of the data have other contexts.

        Raises
        ------
        ValueError
            As in `sample`.

        Warns
        -----
        NotMixedWarning
            If the largest R-hat is above 1.05.
        """
        check_is_fitted(self)
        refuse_forked_process()
        before = self._context.encode(context, 1)
        if self.n_lags:
            before = np.concatenate([self._latest(prefix).ravel()[None], before], 1)
        else:
            self._refuse_prefix(prefix)
        rbm = self.energy_.at(self._features(before)[0])
        chains = chains_of(rbm, n_draws, self._seed(random_state))
        warn_unless_mixed(chains)
        return diagnosis(
            chains,
            self._column_names(),
            location=self._columns.location,
            scale=self._columns.scale,
        )

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

    def _refuse_prefix(self, prefix):
        """Raise where rows before the first tell nothing."""
        if prefix is not None:
            raise ValueError(
                "Got a prefix with n_lags=0, where no row depends on the rows before "
                "it. Pass n_lags=1 or more, or leave it out."
            )

    def _given_row(self, given):
        """Return places, values and one row of the units, NaN where nothing is given.

        Shapes (k,), (k,) and (1, d).
        """
        d = self.n_features_in_
        names = getattr(self, "feature_names_in_", None)
        places, _, exact = given_columns(given, names, np.zeros(d), np.ones(d))
        row = np.zeros((1, d))
        row[0, places] = exact
        row = self._columns.encode(row, type(self).__name__)
        row[0, np.delete(np.arange(d), places)] = np.nan
        return list(places), list(exact), row

    def _sequence(self, contexts, prefix, row, generator):
        """Return values of the units, each row drawn given those before it, (n, d)."""
        past, rows = self._latest(prefix), []
        for context in contexts:
            before = np.concatenate([past.ravel(), context])[None]
            rows.append(self._drawn(before, row, generator))
            past = np.concatenate([rows[-1], past[:-1]])
        return np.concatenate(rows)

    def _drawn(self, before, row, generator):
        """Return values of the units given lags, contexts and a partial row, (n, d)."""
        with torch.no_grad():
            u = self._features(before)
            if np.isnan(row).all():
                return to_numpy(draw_given(self.energy_, u, generator=generator))
            contexts, place = _distinct(u)
            rows = torch.from_numpy(row).to(u).repeat(len(u), 1)
            for k, context in enumerate(contexts):
                own = place == k
                machine = self.energy_.at(context)
                rows[own] = draw_missing(machine, rows[own], generator=generator)
        return to_numpy(rows)

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
        contexts, place = _distinct(u)
        return log_partition_given(self.energy_, contexts, seed=self._fit_seed)[place]

    def _calibration_rows(self, rows):
        """Training rows are not kept, so no row is known to be one."""
        return np.zeros(len(rows), dtype=bool)


def _distinct(u):
    """Return the distinct contexts, and the place of each row's among them."""
    if not u.shape[1]:
        return u[:1], torch.zeros(len(u), dtype=torch.long, device=u.device)
    return torch.unique(u, dim=0, return_inverse=True)
