"""Points and weights for the integral of exp(-E(x, y)) over standardised residuals."""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from skebm._torch import make_generator

FARTHEST = 1e9
"""Residual where the integral over a line ends; what lies beyond has mass < 1e-17."""

FARTHEST_IN_TRAINING = 1e3

N_PANELS, N_PER_PANEL = 160, 4
"""Panels of the line, and Gauss-Legendre points in each of them."""

N_SHIFTED = 72
"""Points of the shifted grid that training uses on a line."""

N_DRAWS, N_QUASI = 512, 2048
"""Points for several targets: random ones in training, and fixed ones after it."""


LEAST_SHARE = -70.0
"""Floor on the log of a term over the largest: below, float32 has denormal numbers,
which take fifty times as long, and no weight in the sum."""


class Nodes(NamedTuple):
    """Points r and weights w: sum_m w_m g(r_m) is the integral of g.

    Attributes
    ----------
    r : Tensor of shape (m, k)
        Residuals.
    log_weight : Tensor of shape (m,)
        log w.
    """

    r: Tensor
    log_weight: Tensor


def log_sum(terms: Tensor) -> Tensor:
    """Return log of the sum of exp(terms) over the last axis.

    Parameters
    ----------
    terms : Tensor of shape (..., m)
        Log-weights of nodes.

    Returns
    -------
    Tensor of shape (...)
        With an error below m e^-70.
    """
    largest = terms.detach().amax(-1, keepdim=True)
    total = (terms - largest).clamp(min=LEAST_SHARE).exp().sum(-1)
    return total.log() + largest[..., 0]


def stretched(t: Tensor) -> Tensor:
    """Return r = sinh(sinh(t)).

    Parameters
    ----------
    t : Tensor
        Coordinate in which panels are even.

    Returns
    -------
    Tensor
        Residuals.
    """
    return t.sinh().sinh()


def place(r: Tensor) -> Tensor:
    """Return t with sinh(sinh(t)) = r.

    Parameters
    ----------
    r : Tensor
        Residuals.

    Returns
    -------
    Tensor
        Where they are among the panels.
    """
    return r.asinh().asinh()


def log_slope(t: Tensor) -> Tensor:
    """Return log(dr / dt) for r = sinh(sinh(t)).

    Parameters
    ----------
    t : Tensor
        Coordinates.

    Returns
    -------
    Tensor
        Of the same shape.
    """
    return (t.cosh() * t.sinh().cosh()).log()


def gauss_legendre(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points and weights of one panel, on [0, 1].

    Parameters
    ----------
    like : Tensor
        Gives dtype and device.

    Returns
    -------
    points, weights : Tensor of shape (N_PER_PANEL,)
        The points increase; the weights sum to one.
    """
    # Roots and weights for four points.
    inner, outer = (
        math.sqrt(3 / 7 - 2 / 7 * math.sqrt(6 / 5)),
        math.sqrt(3 / 7 + 2 / 7 * math.sqrt(6 / 5)),
    )
    heavy, light = (18 + math.sqrt(30)) / 72, (18 - math.sqrt(30)) / 72
    points = like.new_tensor([-outer, -inner, inner, outer])
    return (points + 1) / 2, like.new_tensor([light, heavy, heavy, light])


def panel_edges(like: Tensor) -> Tensor:
    """Return the edges of the panels in t.

    Parameters
    ----------
    like : Tensor
        Gives dtype and device.

    Returns
    -------
    Tensor of shape (N_PANELS + 1,)
        Evenly spaced.
    """
    end = math.asinh(math.asinh(FARTHEST))
    return torch.linspace(-end, end, N_PANELS + 1, dtype=like.dtype, device=like.device)


def panel_nodes(like: Tensor) -> Nodes:
    """Return the Gauss-Legendre points of all panels, in increasing order.

    Parameters
    ----------
    like : Tensor
        Gives dtype and device.

    Returns
    -------
    Nodes
        Of shape (N_PANELS * N_PER_PANEL, 1).
    """
    edges, (points, weights) = panel_edges(like), gauss_legendre(like)
    width = edges[1] - edges[0]
    t = (edges[:-1, None] + width * points).reshape(-1)
    log_weight = (width * weights).log().repeat(N_PANELS) + log_slope(t)
    return Nodes(stretched(t)[:, None], log_weight)


def shifted_nodes(like: Tensor, generator: Generator) -> Nodes:
    """Return an even grid in t with a random shift: its error has mean zero.

    Parameters
    ----------
    like : Tensor
        Gives dtype and device.
    generator : Generator
        Source of the shift.

    Returns
    -------
    Nodes
        Of shape (N_SHIFTED, 1).
    """
    end = math.asinh(math.asinh(FARTHEST_IN_TRAINING))
    step = 2 * end / N_SHIFTED
    shift = torch.empty_like(like[:1, 0]).uniform_(generator=generator)
    steps = torch.arange(N_SHIFTED, dtype=like.dtype, device=like.device)
    t = step * (steps + shift) - end
    return Nodes(stretched(t)[:, None], log_slope(t) + math.log(step))


def heavy_nodes(u: Tensor) -> Nodes:
    """Return draws of independent Student variables with two degrees of freedom.

    Their density q(r) = (2 + r^2)^(-3/2) has heavier tails than any base, so that
    weights stay bounded.

    Parameters
    ----------
    u : Tensor of shape (m, k)
        Numbers in (0, 1).

    Returns
    -------
    Nodes
        Weights 1 / (m q(r)).
    """
    r = (2 * u - 1) / (2 * u * (1 - u)).sqrt()
    return Nodes(r, 1.5 * (2 + r * r).log().sum(1) - math.log(len(u)))


def drawn_nodes(like: Tensor, n: int, k: int, generator: Generator) -> Nodes:
    """Return ``n`` random nodes for k targets.

    Parameters
    ----------
    like : Tensor
        Gives dtype and device.
    n, k : int
        Nodes and targets.
    generator : Generator
        Source of randomness.

    Returns
    -------
    Nodes
        Of `heavy_nodes`.
    """
    u = torch.empty(n, k, dtype=like.dtype, device=like.device)
    return heavy_nodes(u.uniform_(1e-6, 1 - 1e-6, generator=generator))


def fixed_nodes(like: Tensor, k: int) -> Nodes:
    """Return the nodes that normalise k targets: panels of a line, or Sobol's points.

    Parameters
    ----------
    like : Tensor
        Gives dtype and device.
    k : int
        Targets.

    Returns
    -------
    Nodes
        The same in every call.
    """
    if k == 1:
        return panel_nodes(like)
    shift = torch.rand(k, generator=make_generator(0), dtype=torch.float64)
    engine = torch.quasirandom.SobolEngine(k)  # type: ignore[no-untyped-call]
    points = engine.draw(N_QUASI, dtype=torch.float64)
    u = ((points + shift) % 1).clamp(1e-6, 1 - 1e-6)
    return heavy_nodes(u.to(like))
