"""log Z of a fitted RBM, its draws and expectations, with numpy at both ends."""

import copy
import warnings

import numpy as np
import torch

from skebm._torch import make_generator, to_numpy
from skebm.estimators.choices import RBM_NORMALIZERS, resolve
from skebm.exceptions import PartitionWarning
from skebm.partition import AnnealedGibbs, LayerSum
from skebm.partition.rbm import MOST_BITS, smaller_layer_bits
from skebm.samplers import BlockGibbs, draw_missing, run_chains
from skebm.samplers.clamped import MOST_HIDDEN, expected_statistics

N_GUESSES = 20
"""Draws of a row's missing entries that an imputed value is the mean of."""

MANY_TEMPERATURES = 5000
"""Places on the path of the second attempt at log Z."""

MOST_ROWS = 8192
"""Rows that are drawn at once."""

N_CHAINS = 64
"""Chains of a diagnosis."""


def log_partition_of(rbm, normalizer, x, seed):
    """Return log Z of an RBM.

    Parameters
    ----------
    rbm : RBM
        Fitted.
    normalizer : str or Normalizer
        "auto": a sum over the smaller layer up to 22 bits, else annealing, five times
        as slow where the two ways disagree.
    x : Tensor of shape (n, d)
        Rows from which annealed chains walk back; NaN is missing.
    seed : int
        Of the chains.

    Returns
    -------
    LogPartition
        Estimate, interval and effective sample size.
    """
    generator = make_generator(seed, x.device)
    small = smaller_layer_bits(rbm) <= MOST_BITS
    if normalizer == "auto" and small:
        normalizer = LayerSum()
    if normalizer == "auto":
        with warnings.catch_warnings():
            warnings.simplefilter("error", PartitionWarning)
            try:
                return _annealed(rbm, AnnealedGibbs(), x, generator)
            except PartitionWarning:
                normalizer = AnnealedGibbs(n_temperatures=MANY_TEMPERATURES)
    chosen = resolve(normalizer, RBM_NORMALIZERS)
    if isinstance(chosen, AnnealedGibbs):
        return _annealed(rbm, chosen, x, generator)
    return chosen(rbm, base=rbm.independent(), generator=generator)


def _annealed(rbm, annealing, x, generator):
    """Return log Z by annealing in single precision."""
    narrow = copy.deepcopy(rbm).float()
    order = torch.randperm(len(x), generator=generator, device=x.device)
    starts = x[order[: annealing.n_chains]].float()
    with torch.no_grad():
        starts = draw_missing(narrow, starts, generator=generator)
    return annealing(narrow, base=narrow.independent(), generator=generator, x=starts)


def drawn(rbm, rows, seed):
    """Return rows with their missing entries drawn given the others.

    Parameters
    ----------
    rbm : RBM
        Fitted.
    rows : ndarray of shape (n, d)
        Values of the units; NaN is missing.
    seed : int
        Of the draws.

    Returns
    -------
    ndarray of shape (n, d)
        In float64.
    """
    generator = make_generator(seed, rbm.weight.device)
    x = torch.from_numpy(rows).to(rbm.weight)
    with torch.no_grad():
        pieces = torch.split(x, MOST_ROWS)
        found = [draw_missing(rbm, piece, generator=generator) for piece in pieces]
    return to_numpy(torch.cat(found))


def imputed(rbm, rows, seed):
    """Return rows with their missing entries at their expectations given the others.

    Exact up to 16 hidden bits; else the mean over draws of the hidden bits of
    E[phi(v) | h], less noisy than the mean of draws of v.

    Parameters
    ----------
    rbm : RBM
        Fitted.
    rows : ndarray of shape (n, d)
        Values of the units; NaN is missing.
    seed : int
        Of the draws.

    Returns
    -------
    ndarray of shape (n, d)
        In the type of ``rows``; observed entries as they are.
    """
    missing = np.isnan(rows)
    some = missing.any(1)
    if not some.any():
        return rows
    with torch.no_grad():
        if rbm.n_hidden <= MOST_HIDDEN:
            x = torch.from_numpy(rows[some]).to(rbm.weight)
            mean = expected_statistics(rbm, x)
        else:
            v = torch.from_numpy(drawn(rbm, np.repeat(rows[some], N_GUESSES, 0), seed))
            fields = rbm.visible_fields(rbm.hidden_mean(v.to(rbm.weight)))
            mean = rbm.layer.mean(fields).view(-1, N_GUESSES, fields.shape[1]).mean(1)
        guess = to_numpy(rbm.layer.guess(mean))
    full = rows.copy()
    full[some] = np.where(missing[some], guess, rows[some])
    return full


def chains_of(rbm, n_draws, seed):
    """Run 64 chains of block Gibbs from draws of the RBM.

    Parameters
    ----------
    rbm : RBM
        Fitted.
    n_draws : int
        Draws of each chain.
    seed : int
        Of the chains.

    Returns
    -------
    Chains
        Draws and diagnostics.
    """
    nothing = np.full((N_CHAINS, rbm.layer.n_features), np.nan)
    starts = torch.from_numpy(drawn(rbm, nothing, seed)).to(rbm.weight)
    generator = make_generator(seed, rbm.weight.device)
    return run_chains(BlockGibbs(), rbm, starts, n_draws=n_draws, generator=generator)
