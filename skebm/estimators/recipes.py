"""From scaled rows to a trained energy: which base, which network, how long."""

import math

import numpy as np
import torch
from sklearn.base import clone

from skebm._torch import make_generator
from skebm.energies import MLP, Constrained, Tilted
from skebm.estimators.bases import base_of, fitted_base, single_gaussian
from skebm.estimators.runs import Fit
from skebm.estimators.splits import N_FOLDS, can_hold_out, folds, holdout
from skebm.exceptions import NotNormalizableError
from skebm.objectives import NoiseContrastive
from skebm.partition import check_normalizable

N_LARGE = 2000
"""From this many rows on, one held-out part replaces cross-validation."""

N_NETWORKS = 3
"""Networks that a small table averages."""

SMALL = {
    "n_steps": 1500,
    "learning_rate": 2e-3,
    "weight_decay": 0.1,
    "schedule": "constant",
    "ema": 0.99,
}
PATIENCE = {"early_stopping": True, "n_iter_no_change": 10, "tol": 0.0}
LARGE = {"learning_rate": 4e-3, "schedule": "cosine", "ema": 0.999}
N_STEPS_SINGLE, N_STEPS_MIXTURE, N_STEPS_GIVEN = 6000, 2000, 4000

LEAST_REACH = 5.0
"""Least distance, in standard deviations, up to which a tilt sees the columns."""


def train(table, energy, objective, base, runs, validation_fraction):
    """Train an energy of scaled rows.

    Parameters
    ----------
    table : Counted
        Scaled rows.
    energy : Energy or None
        Unbuilt; None, with no ``objective`` and some ``base``: a tilted mixture.
    objective : Objective or None
        None is noise-contrastive estimation.
    base : {"auto", "gaussian"}, GaussianMixture, FrozenEstimator or None
        What the energy tilts.
    runs : Runs
        Settings of the training.
    validation_fraction : float
        Share of the rows to hold out.

    Returns
    -------
    Fit
        The trained energy. Ctrl-C before the first epoch leaves a single Gaussian.
    """
    try:
        if energy is not None or objective is not None or base is None:
            energy = MLP() if energy is None else energy
            objective = NoiseContrastive() if objective is None else objective
            return fit_given(table, energy, objective, base, runs, validation_fraction)
        if table.n_observations >= N_LARGE:
            return fit_large(table, base, runs, validation_fraction)
        if can_hold_out(table):
            return fit_small(table, base, runs)
    except KeyboardInterrupt:
        runs.interrupted = True
    law = single_gaussian(table.rows).to(runs.device)
    return Fit(law, law, np.arange(len(table.rows)), None, {}, 0)


def fit_large(table, base, runs, validation_fraction):
    """Keep the best of a mixture, the mixture tilted and a single Gaussian tilted.

    Parameters
    ----------
    table : Counted
        Scaled rows.
    base : {"auto", "gaussian"}, GaussianMixture or FrozenEstimator
        "auto" tries both; any other is the one that is tilted.
    runs : Runs
        Settings of the training.
    validation_fraction : float
        Share of the rows that decides.

    Returns
    -------
    Fit
        The candidate with the highest likelihood of the held-out rows.
    """
    z = table.rows
    train, held_out = holdout(table, validation_fraction, runs.seed)
    plans = []
    if base != "gaussian":
        mixture = base_of(base, z, [(train, held_out)], runs.seed, table.copies)
        plans.append((fitted_base(mixture, z[train]), N_STEPS_MIXTURE))
    if base in ("auto", "gaussian"):
        plans.append((single_gaussian(z[train]), N_STEPS_SINGLE))
    x, x_valid = runs.tensor(z[train]), runs.tensor(z[held_out])
    best, best_score = None, -np.inf
    for law, n_steps in plans:
        energy = tilted(law, z, MLP(hidden=(128, 128, 128), activation="relu"))
        history = runs.run(
            energy, NoiseContrastive(), x, x_valid, n_steps=n_steps, **LARGE
        )
        for candidate in (energy.base, energy):
            score = runs.log_density(candidate, x_valid).mean()
            if score > best_score:
                best_score = score
                best = Fit(candidate, energy.base, held_out, None, *history[:2])
        if runs.interrupted:
            break
    return best


def fit_small(table, base, runs):
    """Cross-validate a mixture and how long to train its tilt; average three nets.

    Parameters
    ----------
    table : Counted
        Scaled rows.
    base : {"auto", "gaussian"}, GaussianMixture or FrozenEstimator
        What is tilted; "auto" chooses a mixture.
    runs : Runs
        Settings of the training.

    Returns
    -------
    Fit
        The tilted mixture, or the mixture where the gain in held-out likelihood is
        less than its standard error.
    """
    z = table.rows
    every = np.arange(len(z))
    splits = folds(table, N_FOLDS, runs.seed)
    mixture = base_of(base, z, splits, runs.seed, table.copies)
    of_base, of_tilt, curves = np.empty(len(z)), np.empty(len(z)), []
    for train, held_out in splits:
        x_valid = runs.tensor(z[held_out])
        energy = tilted(fitted_base(mixture, z[train]), z, _small_network())
        history = runs.run(
            energy,
            NoiseContrastive(),
            runs.tensor(z[train]),
            x_valid,
            **SMALL,
            forced=PATIENCE,
        )
        if runs.interrupted:
            return Fit(energy, energy.base, held_out, None, *history[:2])
        of_base[held_out] = runs.log_density(energy.base, x_valid)
        of_tilt[held_out] = runs.log_density(energy, x_valid)
        curves.append(history.history["valid_loss"])
    law = fitted_base(mixture, z)
    n_epochs, gain, error = _best_epoch(curves)
    if gain <= error:
        return Fit(law.to(runs.device), law, every, of_base, *history[:2])
    energy, history = _average(law, z, runs, n_epochs)
    return Fit(energy, energy.base, every, of_tilt, *history[:2])


def fit_given(table, energy, objective, base, runs, validation_fraction):
    """Train one energy by one objective.

    Parameters
    ----------
    table : Counted
        Scaled rows.
    energy : Energy
        Unbuilt.
    objective : Objective
        What is minimised.
    base : {"auto", "gaussian"}, GaussianMixture, FrozenEstimator or None
        What the energy tilts; None: the energy stands alone. "auto" is None where the
        untrained energy confines itself.
    runs : Runs
        Settings of the training.
    validation_fraction : float
        Share of the rows that picks the epoch, if the objective is a criterion.

    Returns
    -------
    Fit
        The trained energy.
    """
    z = table.rows
    if base == "auto" and _confines_itself(energy, z.shape[1], runs.seed):
        base = None
    kind = "gaussian" if base is None else base
    _refuse_rows_outside(energy, z)
    every = np.arange(len(z))
    judge, (train, held_out) = (every, every), (every, every)
    if can_hold_out(table):
        # Also where training takes every row: a base that judged itself by the rows it
        # was fitted to would have one component for each few of them.
        judge = holdout(table, validation_fraction, runs.seed)
        if objective.is_criterion:
            train, held_out = judge
    mixture = base_of(kind, z, [judge], runs.seed, table.copies)
    law = fitted_base(mixture, z[train])
    energy = energy if base is None else tilted(law, z, energy)
    x_valid = runs.tensor(z[held_out]) if len(train) < len(z) else None
    history = runs.run(
        energy,
        objective,
        runs.tensor(z[train]),
        x_valid,
        n_steps=N_STEPS_GIVEN,
        **LARGE,
    )
    return Fit(energy, law.to(runs.device), held_out, None, *history[:2])


def _refuse_rows_outside(energy, z):
    """Raise if a hard constraint shuts training rows out: their energy is infinite."""
    if isinstance(energy, Constrained):
        n_outside = int((~energy.region.contains(torch.from_numpy(z))).sum())
        if n_outside:
            raise ValueError(
                f"Got {n_outside} rows outside the region of {energy!r}. It is in "
                "scaled units, (x - location_) / scale_ with the columns' means and "
                "standard deviations: give its bounds in these."
            )


def tilted(base, z, network):
    """Return the base tilted by a network that sees no further than the rows.

    Parameters
    ----------
    base : Gaussians
        Normalised density.
    z : ndarray of shape (n_samples, n_features)
        Scaled rows.
    network : Energy
        Unbuilt.

    Returns
    -------
    Tilted
        Its tilt is constant beyond ``reach``, in standard deviations.
    """
    return Tilted(base, network, reach=max(LEAST_REACH, 1.2 * float(np.abs(z).max())))


def _small_network():
    """Return an unbuilt network for a table of less than N_LARGE rows."""
    return MLP(hidden=(64, 64), activation="silu")


def _best_epoch(curves):
    """Return the epochs that cross-validation picks, the gain over the base, its error.

    The held-out loss is the log-likelihood ratio of base to model.
    """
    length = min(len(curve) for curve in curves)
    loss = np.array([curve[:length] for curve in curves])
    best = int(loss.mean(0).argmin())
    gain = -loss[:, best]
    return best + 1, gain.mean(), gain.std(ddof=1) / math.sqrt(len(gain))


def _average(base, z, runs, n_epochs):
    """Return the base tilted by the mean of several networks, and the last history."""
    x, networks = runs.tensor(z), []
    for _ in range(N_NETWORKS):
        energy = tilted(base, z, _small_network())
        history = runs.run(
            energy,
            NoiseContrastive(),
            x,
            **SMALL,
            forced={"max_iter": n_epochs, "early_stopping": False},
        )
        networks.append(energy.tilt)
        if runs.interrupted:
            break
    total = sum(networks[1:], start=networks[0])
    return tilted(energy.base, z, total * (1 / len(networks))), history


def _confines_itself(energy, n_features, seed):
    """Tell whether the untrained energy rises fast enough in every direction."""
    built = clone(energy).build(n_features, generator=make_generator(seed))
    try:
        check_normalizable(built, n_features, generator=make_generator(seed))
    except NotNormalizableError:
        return False
    return True
