"""Which estimate of log Z fits an energy: closed form, importance, quadrature, SMC."""

import warnings

import numpy as np

from skebm.energies import Tilted
from skebm.exceptions import PartitionWarning
from skebm.partition import (
    SMC,
    ImportanceSampling,
    LogPartition,
    Quadrature,
    check_normalizable,
)
from skebm.partition.estimate import FEWEST_EFFECTIVE

N_VALUES = 10_000_000
"""Values, rows times columns, that importance sampling draws."""

N_ROWS = 10_000, 400_000
"""Fewest and most rows that it draws."""


def log_partition_of(energy, base, normalizer, *, generator):
    """Return log Z of a trained energy.

    Parameters
    ----------
    energy : Energy
        Over scaled rows.
    base : Gaussians
        A normalised density near the rows.
    normalizer : Normalizer or None
        None chooses by what the energy is.
    generator : Generator
        Source of randomness, on the energy's device.

    Returns
    -------
    LogPartition
        Estimate, interval and effective sample size.

    Raises
    ------
    NotNormalizableError
        If exp(-E) has no finite integral.
    """
    n_features = base.means.shape[1]
    closed = energy.log_partition()
    if closed is not None and normalizer is None:
        return LogPartition(closed, (closed, closed), float("inf"), "closed form")
    if not isinstance(energy, Tilted) or energy.reach is None:
        check_normalizable(energy, n_features, generator=generator)
    if normalizer is not None:
        return normalizer(energy, base=base, generator=generator)
    if isinstance(energy, Tilted):
        return _by_importance(energy, base, n_features, generator)
    usual = Quadrature() if n_features <= 2 else SMC()
    return usual(energy, base=base, generator=generator)


def log_volume(scale):
    """Return log of the volume of a unit cube of scaled rows, in the units of X.

    Parameters
    ----------
    scale : ndarray of shape (n_features,)
        Standard deviations.

    Returns
    -------
    float
        sum log s.
    """
    return float(np.log(scale).sum())


def in_units(found, scale):
    """Return log Z in the units of X.

    Parameters
    ----------
    found : LogPartition or None
        log Z of scaled rows.
    scale : ndarray of shape (n_features,)
        Standard deviations.

    Returns
    -------
    value, interval, ess : float, tuple of float, float
        log Z, its 95% interval, its effective sample size; None each if unknown.
    """
    if found is None:
        return None, None, None
    shift = log_volume(scale)
    low, high = found.interval
    return found.value + shift, (low + shift, high + shift), found.ess


def _by_importance(energy, base, n_features, generator):
    """Return the importance estimate, or SMC's where few draws carry the weight."""
    n_samples = min(N_ROWS[1], max(N_ROWS[0], N_VALUES // n_features))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PartitionWarning)
        found = ImportanceSampling(n_samples)(energy, base=base, generator=generator)
    if found.ess >= FEWEST_EFFECTIVE * n_samples:
        return found
    return SMC()(energy, base=base, generator=generator)
