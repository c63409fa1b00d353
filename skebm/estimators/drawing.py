"""Rows from exp(-E) / Z: exact where a base covers E, else by chains."""

import math
import warnings

import numpy as np
import torch

from skebm._torch import to_numpy
from skebm.energies import Conditioned, Gaussians, Tilted
from skebm.exceptions import NotMixedWarning
from skebm.samplers import (
    HMC,
    Cycle,
    Independence,
    bulk_ess,
    run_chains,
    split_rhat,
)

N_CHAINS = 64
N_POOL = 20_000
"""Base rows that find the bound of rejection sampling and the starts of chains."""

LEAST_ACCEPTANCE = 1e-3
"""Rejection sampling that keeps fewer rows gives way to chains."""

LARGEST_BATCH = 100_000
FEWEST_DRAWS, THIN = 50, 5
LARGEST_RHAT = 1.05

OTHER_CHAINS = (
    "Draws are from some of the modes alone. Run longer chains (n_draws), and fit with "
    "chains='tempered' where the estimator has it."
)
"""Advice on the chains of a machine."""


def default_sampler(base):
    """Return HMC within modes and independent proposals of the base between them.

    Parameters
    ----------
    base : Gaussians
        A density near the rows.

    Returns
    -------
    Cycle
        Not tuned yet.
    """
    return Cycle(HMC(), Independence(base))


def draw(energy, base, sampler, n_samples, *, generator):
    """Draw rows of exp(-E) / Z.

    Parameters
    ----------
    energy : Energy
        Built.
    base : Gaussians
        Where chains start, and what the default sampler proposes.
    sampler : Sampler or None
        None: rejection sampling from the base of a `Tilted` energy if that keeps one
        row in a thousand, else the default chains.
    n_samples : int
        Number of rows.
    generator : Generator
        Source of randomness, on the energy's device.

    Returns
    -------
    Tensor of shape (n_samples, d)
        Rows.

    Warns
    -----
    NotMixedWarning
        If chains disagree with each other.
    """
    if sampler is None and isinstance(energy, Gaussians):
        return energy.sample(n_samples, generator=generator)
    if sampler is None and isinstance(energy, Tilted):
        rows = _rejection(energy, n_samples, generator)
        if rows is not None:
            return rows
    n_draws = max(FEWEST_DRAWS, math.ceil(n_samples / N_CHAINS))
    chains = mixed_chains(energy, base, sampler, n_draws, THIN, generator=generator)
    rows = chains.draws.flatten(0, 1)
    order = torch.randperm(len(rows), generator=generator, device=rows.device)
    return rows[order[:n_samples]]


def mixed_chains(energy, base, sampler, n_draws, thin, *, generator):
    """Run 64 chains from likely base rows; warn if they disagree.

    Parameters
    ----------
    energy : Energy
        Built.
    base : Gaussians
        Where chains start.
    sampler : Sampler or None
        None is the default one. Its open parameters are tuned in warm-up.
    n_draws, thin : int
        Draws per chain, steps per draw.
    generator : Generator
        Source of randomness, on the energy's device.

    Returns
    -------
    Chains
        Draws and diagnostics.

    Warns
    -----
    NotMixedWarning
        If the largest R-hat is above 1.05.
    """
    chains = run_chains(
        default_sampler(base) if sampler is None else sampler,
        energy,
        _starts(energy, base, generator),
        n_draws=n_draws,
        thin=thin,
        generator=generator,
    )
    warn_unless_mixed(
        chains,
        "Pass sampler='tempering', a base that covers the modes, or a value of "
        "skebm.samplers with larger or more steps, such as ULA(step_size=0.1).",
        stacklevel=5,
    )
    return chains


def warn_unless_mixed(chains, advice=OTHER_CHAINS, stacklevel=3):
    """Warn about chains that disagree.

    Parameters
    ----------
    chains : Chains
        Draws and diagnostics.
    advice : str, default=OTHER_CHAINS
        What to do then.
    stacklevel : int, default=3
        Of the warning.

    Warns
    -----
    NotMixedWarning
        If the largest R-hat is above 1.05.
    """
    worst = float(chains.rhat().nan_to_num(1.0).max())
    if worst > LARGEST_RHAT:
        warnings.warn(
            f"The chains did not mix: R-hat is {worst:.4g}, and should be below "
            f"{LARGEST_RHAT}. {advice}",
            NotMixedWarning,
            stacklevel=stacklevel,
        )


def tuned(energy, base, sampler, *, generator):
    """Return a sampler with its open parameters tuned to an energy, once.

    Parameters
    ----------
    energy : Energy
        Built.
    base : Gaussians
        Where chains start.
    sampler : Sampler
        Its kernel.
    generator : Generator
        Source of randomness, on the energy's device.

    Returns
    -------
    Sampler
        For chains without warm-up.
    """
    starts = _starts(energy, base, generator)
    return run_chains(sampler, energy, starts, n_draws=1, generator=generator).sampler


def diagnosis(chains, names, known=None, location=0.0, scale=1.0):
    """Return the table of `DeepEBM.diagnose`.

    Parameters
    ----------
    chains : Chains
        Draws and diagnostics.
    names : sequence of length n_columns
        Of the columns of the draws.
    known : ndarray of shape (n,) or None, default=None
        Energies of calibration rows; None leaves ``energy_gap`` NaN.
    location, scale : float or ndarray of shape (n_columns,), default=0.0, 1.0
        Of the columns.

    Returns
    -------
    DataFrame of shape (n_columns + 1, 6)
        A line per column and one for the energy.
    """
    import pandas as pd

    energies = chains.energies[:, :, None]
    draws = torch.cat([chains.draws, energies], 2)
    n_columns = len(names)
    location = np.append(np.broadcast_to(location, n_columns), 0.0)
    scale = np.append(np.broadcast_to(scale, n_columns), 1.0)
    gap = math.nan if known is None else float(chains.energies.mean()) - known.mean()
    return pd.DataFrame(
        {
            "mean": to_numpy(draws.mean((0, 1))) * scale + location,
            "sd": to_numpy(draws.flatten(0, 1).std(0)) * scale,
            "rhat": to_numpy(split_rhat(draws)),
            "ess": to_numpy(bulk_ess(draws)),
            "acceptance": chains.acceptance,
            "energy_gap": gap,
        },
        index=[*names, "energy"],
    )


def conditioned(energy, base, columns, values):
    """Return energy and base over the free columns, given the others.

    Parameters
    ----------
    energy : Energy
        Built, over all columns.
    base : Gaussians
        Density near the rows, over all columns.
    columns : tuple of int
        Places of the given columns.
    values : tuple of float
        Their scaled values.

    Returns
    -------
    energy : Energy
        Over the free columns.
    base : Gaussians
        Over the free columns.
    """
    free_base = base.condition(columns, values)
    if isinstance(energy, Gaussians):
        return energy.condition(columns, values), free_base
    if isinstance(energy, Tilted) and isinstance(energy.base, Gaussians):
        reach = math.inf if energy.reach is None else energy.reach
        seen = tuple(min(reach, max(-reach, value)) for value in values)
        tilt = Conditioned(energy.tilt, columns, seen)
        return Tilted(free_base, tilt, energy.reach), free_base
    return Conditioned(energy, columns, values), free_base


def _rejection(energy, n_samples, generator):
    """Return exact rows of a tilted base, or None if it keeps too few.

    A row of the base is kept with probability exp(-tilt + min tilt); the minimum is
    that of all base rows drawn so far.
    """
    pool = energy.sample_base(N_POOL, generator=generator)
    log_weights = _log_weights(energy, pool)
    bound = log_weights.max()
    rate = float((log_weights - bound).exp().mean())
    if not rate >= LEAST_ACCEPTANCE:
        return None
    kept, n_kept = [], 0
    while n_kept < n_samples:
        u = torch.rand(len(pool), generator=generator, device=pool.device)
        kept.append(pool[u.log() <= log_weights - bound])
        n_kept += len(kept[-1])
        n_more = math.ceil(1.1 * (n_samples - n_kept) / rate) + N_CHAINS
        n_more = min(LARGEST_BATCH, max(N_CHAINS, n_more))
        pool = energy.sample_base(n_more, generator=generator)
        log_weights = _log_weights(energy, pool)
        bound = torch.maximum(bound, log_weights.max())
    return torch.cat(kept)[:n_samples]


def _log_weights(energy, rows):
    """Return log p / b of base rows, up to log Z."""
    with torch.no_grad():
        return -energy.correction(rows)


def _starts(energy, base, generator):
    """Return base rows drawn by their importance for the energy, one per chain."""
    with torch.no_grad():
        pool = base.sample(N_POOL, generator=generator)
        log_weights = base(pool) - energy(pool)
    weights = (log_weights - log_weights.max()).nan_to_num(nan=0.0).exp()
    place = torch.multinomial(weights, N_CHAINS, True, generator=generator)
    return pool[place]
