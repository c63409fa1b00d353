"""What a fitted energy regression tells of rows and targets."""

from numbers import Real

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_array, check_is_fitted

from skebm._check import check_rows
from skebm._torch import in_chunks, make_generator, refuse_forked_process, to_numpy
from skebm.base import Fitting
from skebm.energies.response_law import response_law
from skebm.estimators.draws import check_n_samples
from skebm.estimators.response_training import CHUNK
from skebm.estimators.scaling import scaled

N_LEVELS = 4
"""Quantiles that are found at once."""


class ResponseReaders(RegressorMixin, Fitting):
    """The readers of a `ResponseEnergy` in ``energy_`` of scaled rows and targets."""

    def predict(self, X):
        """Return the mean of y given each row, or its median or mode.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_targets)
            What ``prediction`` names; medians are those of each target.
        """
        x = self._rows(X)
        if self.prediction == "median":
            return self._shaped(self._quantiles(x, np.array([0.5]), None)[..., 0])
        if self.prediction == "mode":
            self._refuse_several()
            found = self._measure(x, lambda law: (law.mode(),))
        else:
            found = self._measure(x, lambda law: (law.mean(),))
        return self._shaped(found * self._y_scale + self._y_location)

    def predict_interval(self, X, coverage=0.9):
        """Return an interval for y given each row, as likely missed on either side.

        With ``calibration="conformal"`` the ends are where the members' P(y' <= y | x),
        sent through the distribution of the levels that held-out training rows had,
        average to (1 -+ coverage) / 2: distributional conformal prediction, by
        cross-fitting as in the CV+ method.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        coverage : float, default=0.9
            Probability of the interval, in (0, 1).

        Returns
        -------
        ndarray of shape (n_samples, 2) or (n_samples, n_targets, 2)
            Lower and upper ends, of each target by itself.
        """
        x = self._rows(X)
        if not isinstance(coverage, Real) or not 0 < coverage < 1:
            raise ValueError(
                f"coverage must be in (0, 1); got coverage={coverage!r}. Pass one "
                "share of the rows that shall fall inside, such as 0.9."
            )
        levels = np.array([(1 - coverage) / 2, (1 + coverage) / 2])
        levels_seen = None if self.calibration is None else self._calibrated
        return self._shaped(self._quantiles(x, levels, levels_seen))

    def predict_quantiles(self, X, quantiles=(0.05, 0.5, 0.95)):
        """Return quantiles of p(y | x), without calibration.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        quantiles : array-like of shape (n_quantiles,), default=(0.05, 0.5, 0.95)
            Levels, in (0, 1).

        Returns
        -------
        ndarray of shape (n_samples, n_quantiles) or (n_samples, n_targets, n_quantiles)
            Of each target by itself.
        """
        x = self._rows(X)
        levels = np.asarray(quantiles, dtype=np.float64)
        if (
            levels.ndim != 1
            or not len(levels)
            or not np.all((levels > 0) & (levels < 1))
        ):
            raise ValueError(
                f"quantiles must be levels in (0, 1); got quantiles={quantiles!r}. "
                "Pass a list of one or more, such as [0.5]."
            )
        return self._shaped(self._quantiles(x, levels, None))

    def log_density(self, X, y):
        """Return log p(y | x).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.

        Returns
        -------
        ndarray of shape (n_samples,)
            In nats, for y in the units of ``fit``.
        """
        x = self._rows(X)
        z = torch.from_numpy(self._targets(y, len(x))).to(x)
        found = self._measure(x, lambda law, y: (law.log_density(y),), z)
        return found - np.log(self._y_scale).sum()

    def energy(self, X, y):
        """Return E(x, y) = -log p(y | x): the members are normalised, so Z(x) = 1.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.

        Returns
        -------
        ndarray of shape (n_samples,)
            Low means typical, float64.
        """
        return -self.log_density(X, y)

    def sample(self, X, n_samples=1, *, random_state=None):
        """Draw targets given rows.

        For one target the draws are even within the cells of the quadrature, 640 of a
        member; for several, resampled by weight from 4096 fresh points.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        n_samples : int, default=1
            Draws per row, >= 1.
        random_state : int, RandomState or None, default=None
            Seed of the draws; None takes the estimator's.

        Returns
        -------
        ndarray of shape (n_rows, n_samples) or (n_rows, n_samples, n_targets)
            Draws, row by row.
        """
        x = self._rows(X)
        check_n_samples(n_samples)
        generator = make_generator(self._seed(random_state), x.device)
        y = self._measure(x, lambda law: (law.draw(n_samples, generator=generator),))
        y = y * self._y_scale + self._y_location
        return y[..., 0] if self._y_ndim == 1 else y

    def _rows(self, X):
        """Return X checked against the columns of ``fit``, scaled, as a tensor."""
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False)
        refuse_forked_process()
        z = scaled(rows, self._location, self._scale)
        return torch.from_numpy(z).to(self.device_)

    def _targets(self, y, n):
        """Return targets scaled, shape (n, n_targets)."""
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        y = y.reshape(len(y), -1)
        if y.shape != (n, len(self._y_scale)):
            raise ValueError(
                f"Got y of shape {y.shape}, but expected {n} rows and "
                f"{len(self._y_scale)} target(s), as in fit."
            )
        return scaled(y, self._y_location, self._y_scale)

    def _measure(self, x, reader, *columns):
        """Return what a reader says of the laws of rows, chunk by chunk."""

        def measured(x, *rest):
            """Return what the reader says of a chunk."""
            return reader(response_law(self.energy_, x), *rest)

        with torch.inference_mode():
            return to_numpy(in_chunks(measured, CHUNK, x, *columns)[0])

    def _quantiles(self, x, levels, calibrated):
        """Return quantiles in y's units, shape (n, n_targets, n_levels)."""
        parts = []
        for start in range(0, len(levels), N_LEVELS):
            some = torch.from_numpy(levels[start : start + N_LEVELS]).to(x)
            parts.append(
                self._measure(x, lambda law, p=some: (law.quantiles(p, calibrated),))
            )
        scale, location = self._y_scale[:, None], self._y_location[:, None]
        return np.concatenate(parts, axis=2) * scale + location

    def _calibrated(self, p):
        """Return the share of held-out rows with a lower level than p, by target."""
        found = torch.empty_like(p)
        for j, (levels, shares) in enumerate(
            zip(self.levels_, self.level_shares_, strict=True)
        ):
            # Ties would make the map jump.
            known, first = np.unique(levels, return_index=True)
            last = np.append(first[1:], len(levels)) - 1
            place = np.concatenate([[0.0], known.clip(1e-9, 1 - 1e-9), [1.0]])
            value = np.concatenate([[0.0], shares[last], [1.0]])
            seen = np.interp(p[:, :, j].cpu().numpy(), place, value)
            found[:, :, j] = torch.from_numpy(seen).to(p)
        return found

    def _shaped(self, values):
        """Return values of shape (n, n_targets, ...) as those of y in ``fit`` are."""
        return values[:, 0] if self._y_ndim == 1 else values

    def _refuse_several(self):
        """Raise if there is more than one target."""
        if len(self._y_scale) > 1:
            raise ValueError(
                'prediction="mode" needs one target; got '
                f'{len(self._y_scale)}. Pass "mean" or "median".'
            )

    def __sklearn_is_fitted__(self):
        """Tell whether the last fit came to its end."""
        return hasattr(self, "energy_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
