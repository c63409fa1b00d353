"""A density over scaled rows: its normaliser, threshold, draws and diagnosis."""

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skebm._check import check_rows, refuse_few
from skebm._torch import (
    in_chunks,
    make_generator,
    refuse_forked_process,
    to_numpy,
)
from skebm.base import BaseEBM
from skebm.estimators.choices import NORMALIZERS, SAMPLERS, resolve
from skebm.estimators.drawing import (
    conditioned,
    default_sampler,
    diagnosis,
    draw,
    mixed_chains,
    tuned,
)
from skebm.estimators.draws import check_n_samples
from skebm.estimators.normalizing import in_units, log_partition_of, log_volume
from skebm.estimators.scaling import given_columns, location_and_scale, scaled
from skebm.estimators.weighting import counted

CHUNK = 1024, 128
"""Rows per chunk of `energy`, up to 64 columns and beyond."""


class ScaledDensity(BaseEBM):
    """What estimators share whose energy is a function of scaled rows.

    A subclass has the parameters ``sampler``, ``normalizer`` and ``device``. Its
    ``fit`` calls `_begin`, makes a `Fit`, and hands it to `_normalize` and `_finish`.
    """

    def sample(self, n_samples=1, *, given=None, random_state=None):
        """Draw new rows of the fitted density.

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
            Rows, given columns included; a DataFrame if ``fit`` saw named columns.

        Raises
        ------
        ValueError
            If n_samples < 1, or ``given`` names an unknown column, every column, or a
            value that is not finite.

        Warns
        -----
        NotMixedWarning
            If chains were needed and disagree.
        """
        check_is_fitted(self)
        refuse_forked_process()
        check_n_samples(n_samples)
        energy, base, sampler = self.energy_, self.base_, self._tuned_sampler
        names = getattr(self, "feature_names_in_", None)
        columns, values, exact = given_columns(
            given, names, self.location_, self.scale_
        )
        if columns:
            energy, base = conditioned(energy, base, columns, values)
            sampler = self._chosen_sampler()
        generator = make_generator(self._seed(random_state), self.device_)
        drawn = draw(energy, base, sampler, n_samples, generator=generator)
        free = np.delete(np.arange(self.n_features_in_), columns)
        rows = np.empty((n_samples, self.n_features_in_))
        rows[:, columns] = exact
        rows[:, free] = to_numpy(drawn) * self.scale_[free] + self.location_[free]
        return self._named(rows)

    def diagnose(self, n_draws=200, *, random_state=None):
        """Run the sampler's chains and tell whether they can be trusted.

        Parameters
        ----------
        n_draws : int, default=200
            Draws of each of the 64 chains, >= 4.
        random_state : int, RandomState or None, default=None
            Seed of the chains; None takes the estimator's.

        Returns
        -------
        DataFrame of shape (n_features + 1, 6)
            One line per column and one for the energy: ``mean`` and ``sd`` of the
            draws, in units of X; ``rhat`` (rank-normalised split R-hat, 1 is best),
            ``ess`` (bulk effective sample size); ``acceptance`` (mean probability) and
            ``energy_gap`` (mean energy of the draws less that of the calibration rows,
            in nats), both of the whole run.

        Warns
        -----
        NotMixedWarning
            If an R-hat is above 1.05.
        """
        check_is_fitted(self)
        refuse_forked_process()
        generator = make_generator(self._seed(random_state), self.device_)
        chains = mixed_chains(
            self.energy_, self.base_, self.sampler_, n_draws, 1, generator=generator
        )
        return diagnosis(
            chains,
            self._column_names(),
            self.calibration_energy_,
            self.location_,
            self.scale_,
        )

    def _begin(self, X, sample_weight=None):
        """Forget the last fit; return X checked and counted; set device and scale."""
        self.__dict__.pop("explain_baseline_", None)
        table = counted(check_rows(self, X, reset=True), sample_weight)
        refuse_few(self, len(table.rows))
        chosen = self._chosen_normalizer()
        if chosen is not None:
            chosen.check_columns(table.rows.shape[1])
        self._set_device_and_seed()
        self.location_, self.scale_ = location_and_scale(table.rows)
        return table

    def _normalize(self, fit):
        """Estimate log Z of the trained energy in the units of X."""
        self.energy_ = fit.energy.requires_grad_(False)
        self.base_ = fit.base
        found = None
        if self.normalizer is not None:
            chosen = self._chosen_normalizer()
            generator = make_generator(self._fit_seed, self.device_)
            found = log_partition_of(
                self.energy_, fit.base, chosen, generator=generator
            )
        self.log_partition_, self.log_partition_interval_, self.log_partition_ess_ = (
            in_units(found, self.scale_)
        )

    def _finish(self, table, fit):
        """Calibrate, set the threshold and what explanations compare with."""
        x = table.rows
        self.energy_ = self.energy_.double().eval()
        self.base_ = self.base_.double()
        generator = make_generator(self._fit_seed, self.device_)
        self.sampler_, self._tuned_sampler = default_sampler(self.base_), None
        if self.sampler != "auto":
            self.sampler_ = self._tuned_sampler = tuned(
                self.energy_, self.base_, self._chosen_sampler(), generator=generator
            )
        if fit.log_density is None:
            known = self._measure(x[fit.held_out])
        else:
            known = -fit.log_density - self._scaled_log_partition
        # One of so many copies: p-values count observations.
        self.calibration_energy_ = np.sort(known)[table.copies // 2 :: table.copies]
        training = self._measure(x)
        self._set_references(x, training)
        self._set_threshold(self._threshold(training))

    @property
    def _scaled_log_partition(self):
        """The log Z of scaled rows; 0 where it is unknown."""
        if self.log_partition_ is None:
            return 0.0
        return self.log_partition_ - log_volume(self.scale_)

    def _chosen_sampler(self):
        """Return a clone of the sampler that the user chose, or None."""
        return None if self.sampler == "auto" else resolve(self.sampler, SAMPLERS)

    def _chosen_normalizer(self):
        """Return a clone of the normaliser that the user chose, or None."""
        if self.normalizer in ("auto", None):
            return None
        return resolve(self.normalizer, NORMALIZERS)

    def _rows(self, X):
        """Return X checked against the columns of ``fit``."""
        return check_rows(self, X, reset=False)

    def _measure(self, rows):
        """Return E of checked rows, shape (n_samples,).

        In double precision, rounded to single: the place of a row in its chunk can
        change the last bits of a matrix product.
        """
        refuse_forked_process()
        z = torch.from_numpy(scaled(rows, self.location_, self.scale_)).to(self.device_)
        size = CHUNK[0] if z.shape[1] <= 64 else CHUNK[1]
        with torch.inference_mode():
            e = in_chunks(lambda chunk: (self.energy_(chunk),), size, z)[0]
        return to_numpy(e.clamp(max=torch.finfo(torch.float32).max).float())

    def _calibration_rows(self, rows):
        """Training rows are not kept, so no row is known to be one."""
        return np.zeros(len(rows), dtype=bool)
