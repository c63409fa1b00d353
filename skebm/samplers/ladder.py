"""Gibbs chains at every place between independent columns and an RBM."""

import torch
from torch import Generator, Tensor

from skebm._torch import bernoulli, probabilities, uniform_like
from skebm.samplers.annealing import AnnealedLayers


def ladder_step(
    layers: AnnealedLayers, v: Tensor, n_levels: int, *, generator: Generator
) -> Tensor:
    """Exchange the states of neighbouring levels, then move each by a Gibbs step.

    Level k of K stands at t = 1 - k / (K - 1): the RBM itself comes first, and at the
    last one every step is an independent draw [1]_.

    Parameters
    ----------
    layers : AnnealedLayers
        The path.
    v : Tensor of shape (n_levels * n, d)
        Rows, level by level.
    n_levels : int
        K >= 2.
    generator : Generator
        Source of randomness, on the device of v.

    Returns
    -------
    Tensor of shape (n_levels * n, d)
        New rows.

    References
    ----------
    .. [1] Desjardins, Courville, Bengio, Vincent, Delalleau (2010), Tempered Markov
       chain Monte Carlo for training of restricted Boltzmann machines, AISTATS.
    """
    levels = torch.linspace(1, 0, n_levels, device=v.device, dtype=v.dtype)
    t = levels.repeat_interleave(len(v) // n_levels)[:, None]
    phi = layers.layer.statistics(v)
    fields = layers.hidden_fields(phi)
    h = bernoulli(probabilities(t * fields), generator)
    # E_t is linear in t; its slope decides on exchanges of (v, h).
    slope = -(phi @ (layers.visible_bias - layers.start)) - (h * fields).sum(1)
    order = exchanges(slope.view(n_levels, -1), t.view(n_levels, -1), generator)
    h = h.view(n_levels, -1, h.shape[1])
    h = h.gather(0, order[:, :, None].expand(-1, -1, h.shape[2]))
    return layers.visible_draw(h.flatten(0, 1), t, generator=generator)


def exchanges(slope: Tensor, t: Tensor, generator: Generator) -> Tensor:
    """Return which level's state each level takes after exchanges of neighbours.

    Levels i and j exchange with probability min(1, exp((t_i - t_j)(D_i - D_j))), D the
    slope of the energy in t; even pairs first, then odd ones.

    Parameters
    ----------
    slope : Tensor of shape (n_levels, n)
        D of the states.
    t : Tensor of shape (n_levels, n)
        Places of the levels.
    generator : Generator
        Source of randomness.

    Returns
    -------
    Tensor of shape (n_levels, n)
        Indices of levels.
    """
    order = torch.arange(len(slope), device=slope.device)[:, None].repeat(
        1, slope.shape[1]
    )
    for first in (0, 1):
        last = first + (len(slope) - first) // 2 * 2
        i, j = slice(first, last, 2), slice(first + 1, last, 2)
        now = slope.gather(0, order)
        log_odds = (t[i] - t[j]) * (now[i] - now[j])
        swap = uniform_like(log_odds, generator).log() < log_odds
        left, right = order[i].clone(), order[j].clone()
        order[i] = torch.where(swap, right, left)
        order[j] = torch.where(swap, left, right)
    return order
