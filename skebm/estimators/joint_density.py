"""What a joint energy of scaled rows does around its training, and its readers."""

import warnings

import numpy as np
import torch

from skebm._check import (
    check_rows,
    check_weights,
)
from skebm._labels import check_partial_labels
from skebm._torch import (
    chunk_rows,
    in_chunks,
    make_generator,
    refuse_forked_process,
    to_numpy,
    uniform_like,
)
from skebm.energies import JointPatterns, JointTilted, OfLabel, Tilted
from skebm.estimators.bases import single_gaussian
from skebm.estimators.choices import NORMALIZERS, resolve
from skebm.estimators.class_readers import ClassReaders
from skebm.estimators.drawing import draw
from skebm.estimators.joint_settings import settings_of
from skebm.estimators.joint_training import JointRecipe
from skebm.estimators.normalizing import in_units, log_partition_of
from skebm.estimators.partial_labels import class_factors, labelled_rows
from skebm.estimators.scaling import middle_and_quarter_range, scaled
from skebm.exceptions import InterruptedFitWarning, NotNormalizableError

N_TRIES, MOST_TRIES = 512, 1_000_000
"""Rows of p(x) that are proposed as rows of a class: at a time, and for each at most.
"""


FARTHEST_DRAW = 100.0
"""Quarter ranges from the middle of the rows, which are within two of it."""


class JointDensity(ClassReaders):
    """A joint energy in ``energy_`` over scaled rows, with labels ``classes_``."""

    def score_samples(self, X):
        """Return -E(x) - log_partition_; high means typical.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            log p(x) in nats, in the units of X; up to a constant where
            ``log_partition_`` is None.
        """
        return -self.energy(X) - (self.log_partition_ or 0.0)

    def _begin(self, X, y, sample_weight, classes=None, partial=False):
        """Set device, seed, scale, classes; return the rows that training sees."""
        x = check_rows(self, X, reset=True)
        y, known = check_partial_labels(self, x, y, classes)
        weights = check_weights(x, sample_weight)
        known &= weights > 0
        if partial and classes is None:
            raise ValueError(
                "classes must be passed on the first call to partial_fit. Pass all "
                "labels of the stream."
            )
        if not known.any():
            raise ValueError(
                "Got no row with a label and a positive weight. Pass some first."
            )
        labels = y[known] if classes is None else classes
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs labels of two classes or more; got "
                f"{len(self.classes_)} class. Pass rows of another class too; -1, NaN "
                "and None are no labels."
            )
        self._set_device_and_seed()
        self.location_, self.scale_ = middle_and_quarter_range(x[weights > 0])
        rows = self._labelled(x, y, known, weights)
        self._base = single_gaussian(rows.repeated().z).to(self.device_)
        return rows

    def _more(self, X, y, classes, sample_weight):
        """Return more rows of a stream, as training sees them."""
        x = check_rows(self, X, reset=False)
        refuse_forked_process()
        y, known = check_partial_labels(self, x, y, self.classes_)
        if classes is not None and not np.array_equal(
            np.unique(classes), self.classes_
        ):
            raise ValueError(
                f"Got classes={list(classes)}, but earlier rows had "
                f"{self.classes_.tolist()}. Pass the same ones, or fit anew."
            )
        return self._labelled(x, y, known, check_weights(x, sample_weight))

    def _labelled(self, x, y, known, weights):
        """Return checked rows, scaled, with codes of their labels."""
        codes = np.full(len(x), -1)
        codes[known] = self._codes(y[known])
        rows = labelled_rows(scaled(x, self.location_, self.scale_), codes, weights)
        factors = class_factors(
            self.class_weight, self.classes_, self.classes_[rows.codes[rows.codes >= 0]]
        )
        self._factors = factors
        return rows

    def _recipe(self):
        """Return how the parameters make an energy."""
        return JointRecipe(
            settings_of(self.get_params(False), self._scaled),
            len(self.classes_),
            self._factors,
            torch.device(self.device_),
            self._fit_seed,
        )

    def _settle(self, energy, history, interrupted):
        """Take a trained energy as the model and find its log Z."""
        if interrupted:
            warnings.warn(
                f"fit was interrupted: the energy is that of epoch {history.n_iter}. "
                "Fit again for the whole training, or lower max_iter.",
                InterruptedFitWarning,
                stacklevel=4,
            )
        self.history_ = {k: np.asarray(v) for k, v in history.history.items()}
        self.n_iter_ = history.n_iter
        energy = energy.double().requires_grad_(False).eval()
        self.temperature_ = float(energy.network.temperature)
        self._n_features_out = energy.n_outputs
        base = energy.base if isinstance(energy, JointTilted) else self._base
        self._base = base.double()
        found = self._log_partition(energy)
        self.log_partition_, self.log_partition_interval_, self.log_partition_ess_ = (
            in_units(found, self.scale_)
        )
        self.energy_ = energy

    def _log_partition(self, energy):
        """Return log Z of the energy of scaled rows, or None."""
        chosen = self.normalizer
        if chosen is None:
            return None
        known = isinstance(energy, JointTilted) or energy.log_partition() is not None
        if chosen == "auto" and not known:
            return None
        chosen = None if chosen == "auto" else resolve(chosen, NORMALIZERS)
        generator = make_generator(self._fit_seed, self.device_)
        return log_partition_of(energy, self._base, chosen, generator=generator)

    def _rows(self, X):
        """Return X checked against the columns of ``fit``."""
        return check_rows(self, X, reset=False)

    def _scaled(self, X):
        """Return rows that an objective holds as training sees rows."""
        return scaled(self._rows(X), self.location_, self.scale_)

    def _row_energy(self, x):
        """Return E(x), shape (n,): no label is looked at."""
        return self.energy_(x)

    def _measure(self, rows, function):
        """Return a function of rows, scaled, in double precision."""
        z = torch.from_numpy(scaled(rows, self.location_, self.scale_)).to(self.device_)
        n_stored = 1
        if isinstance(self.energy_, JointPatterns):
            n_stored = len(self.energy_.patterns.patterns)
        size = chunk_rows(n_stored, z.shape[1])
        with torch.inference_mode():
            return to_numpy(in_chunks(lambda chunk: (function(chunk),), size, z)[0])

    def _drawn(self, n_samples, place, seed):
        """Return rows of exp(-E(x)), or of exp(-E(x, y)), in the units of X."""
        generator = make_generator(seed, self.device_)
        energy = self.energy_
        if isinstance(energy, JointPatterns):
            z = pattern_draws(energy, place, n_samples, generator=generator)
        else:
            law = energy if place is None else of_class(energy, place)
            z = draw(law, self._base, None, n_samples, generator=generator)
            if not float(z.abs().max()) < FARTHEST_DRAW:
                raise NotNormalizableError(
                    f"Got draws that are {float(z.abs().max()):.3g} quarter ranges "
                    "away from the rows: exp(-E) of this network has no finite "
                    "integral. Fit with generative='patterns' or 'tilted' to draw rows."
                )
        return to_numpy(z) * self.scale_ + self.location_

    def __sklearn_is_fitted__(self):
        """Tell whether the last fit came to its end."""
        return hasattr(self, "energy_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def of_class(energy, place):
    """Return E(x, y) of a class, as a tilted density where it is one.

    Parameters
    ----------
    energy : JointNetwork or JointTilted
        Fitted.
    place : int
        Of the class.

    Returns
    -------
    Energy
        Over scaled rows.
    """
    if isinstance(energy, JointTilted):
        tilt = energy.tilt + OfLabel(energy.tilt, place)
        return Tilted(energy.base, tilt, reach=energy.reach)
    return energy + OfLabel(energy, place)


def pattern_draws(energy, place, n_samples, *, generator):
    """Return exact rows of q(x), or of p(x | y) by rejection: q(x) p(y | x) / p(y).

    Parameters
    ----------
    energy : JointPatterns
        Fitted.
    place : int or None
        Of the class; None: of all.
    n_samples : int
        Number of rows.
    generator : Generator
        Source of randomness, on the energy's device.

    Returns
    -------
    Tensor of shape (n_samples, d)
        Scaled rows.

    Raises
    ------
    ValueError
        If fewer than one row in a million is of the class.
    """
    if place is None:
        return energy.patterns.sample(n_samples, generator=generator)
    kept, n_kept, n_tried = [], 0, 0
    while n_kept < n_samples:
        if n_tried > MOST_TRIES * max(1, n_kept):
            raise ValueError(
                f"Got {n_kept} rows of the class in {n_tried} draws of p(x): the model "
                "hardly ever predicts it. Fit with class_weight='balanced'."
            )
        z = energy.patterns.sample(N_TRIES, generator=generator)
        with torch.no_grad():
            p = energy.log_proba(z)[:, place].exp()
        kept.append(z[uniform_like(p, generator) < p])
        n_kept, n_tried = n_kept + len(kept[-1]), n_tried + N_TRIES
    return torch.cat(kept)[:n_samples]
