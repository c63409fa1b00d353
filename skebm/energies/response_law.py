"""p(y | x) of a response energy: distribution function, quantiles, moments, draws."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from skebm._torch import uniform_like
from skebm.energies.crossing import root
from skebm.energies.response import ResponseEnergy
from skebm.energies.response_nodes import (
    FARTHEST,
    N_PANELS,
    N_PER_PANEL,
    N_QUASI,
    drawn_nodes,
    fixed_nodes,
    gauss_legendre,
    log_slope,
    panel_edges,
    place,
    stretched,
)

N_MODE_GRIDS, N_MODE_POINTS = 4, 33
"""Grids, each inside the last one's best three cells, that find a mode."""

Levels = Callable[[Tensor], Tensor]


class ResponseLaw(ABC):
    """The laws of the targets of n rows.

    Parameters
    ----------
    energy : ResponseEnergy
        In eval mode.
    x : Tensor of shape (n, d)
        Rows.

    References
    ----------
    .. [1] Davis, Rabinowitz (1984), Methods of numerical integration, Academic Press.
    """

    def __init__(self, energy: ResponseEnergy, x: Tensor) -> None:
        self.energy, self.x = energy, x
        self.heads = energy.heads(x)
        self.nodes = fixed_nodes(x, energy.n_targets)
        self.terms = energy.node_energies(self.heads, self.nodes)
        self.log_z = self.terms.logsumexp(2)
        self.share = (self.terms - self.log_z[..., None]).exp()

    @abstractmethod
    def distribution(self, y: Tensor) -> Tensor:
        """Return P(target j <= y | x) of every member.

        Parameters
        ----------
        y : Tensor of shape (n, k, q)
            Values of each target.

        Returns
        -------
        Tensor of shape (n_members, n, k, q)
            In [0, 1].
        """

    @abstractmethod
    def mean(self) -> Tensor:
        """Return E[y | x].

        Returns
        -------
        Tensor of shape (n, k)
            In the units of the targets.
        """

    @abstractmethod
    def draw(self, n_draws: int, *, generator: Generator) -> Tensor:
        """Return draws of y given x.

        Parameters
        ----------
        n_draws : int
            Draws per row.
        generator : Generator
            Source of randomness.

        Returns
        -------
        Tensor of shape (n, n_draws, k)
            Draws, row by row.
        """

    def log_density(self, y: Tensor) -> Tensor:
        """Return log p(y | x).

        Parameters
        ----------
        y : Tensor of shape (n, k)
            Targets.

        Returns
        -------
        Tensor of shape (n,)
            In nats.
        """
        r = self.energy.residuals(self.heads, y)
        log_p = -self.energy.member_energies(self.heads, r) - self.log_z
        mean: Tensor = log_p.logsumexp(0) - math.log(self.energy.n_members)
        return mean

    def quantiles(self, levels: Tensor, calibrated: Levels | None = None) -> Tensor:
        """Return the y at which the mean of the members' P(target <= y) is a level.

        Parameters
        ----------
        levels : Tensor of shape (q,)
            In (0, 1).
        calibrated : callable or None, default=None
            Increasing map of [0, 1] to itself, by target, that every member's
            probability goes through first: shape (..., k, q) to the same shape.

        Returns
        -------
        Tensor of shape (n, k, q)
            Quantiles of each target by itself.
        """
        center, spread = self._frame()
        shape = (*center.shape, len(levels))
        end = math.asinh(math.asinh(FARTHEST))
        low = torch.full(shape, -end, dtype=self.x.dtype, device=self.x.device)

        place_of, to_level = center[..., None], calibrated or (lambda p: p)
        t = root(
            lambda t: (
                to_level(self.distribution(place_of + spread[..., None] * stretched(t)))
                .mean(0)
                .sub(levels)
            ),
            low,
            -low,
        )
        return place_of + spread[..., None] * stretched(t)

    def mode(self) -> Tensor:
        """Return the y of the highest density, for one target.

        Returns
        -------
        Tensor of shape (n, 1)
            In the units of the target.
        """
        center, spread = self._frame()
        edges = panel_edges(self.x)
        t = edges.expand(len(self.x), -1)
        for _ in range(N_MODE_GRIDS):
            y = center + spread * stretched(t)
            value = torch.stack(
                [self.log_density(y[:, j : j + 1]) for j in range(y.shape[1])], 1
            )
            best = value.argmax(1, keepdim=True)
            width = (t[:, 1:2] - t[:, :1]).abs()
            middle = t.gather(1, best)
            steps = torch.linspace(-1, 1, N_MODE_POINTS).to(t)
            t = middle + width * steps
        return center + spread * stretched(middle)

    def _frame(self) -> tuple[Tensor, Tensor]:
        """Return a place and a width of the mean law of each target, shape (n, k)."""
        scaled = self.heads.log_scale.exp()[:, :, None] * self.energy.mixing[:, None]
        return self.heads.location.mean(0), scaled.square().sum(3).sqrt().mean(0)


class LineLaw(ResponseLaw):
    """The law of one target, from the panels of the quadrature.

    Parameters
    ----------
    energy : ResponseEnergy
        Of one target, in eval mode.
    x : Tensor of shape (n, d)
        Rows.
    """

    def __init__(self, energy: ResponseEnergy, x: Tensor) -> None:
        super().__init__(energy, x)
        panels = self.share.reshape(*self.share.shape[:2], N_PANELS, N_PER_PANEL).sum(3)
        below = panels.cumsum(2)
        self.below = torch.cat([torch.zeros_like(below[..., :1]), below], 2)

    def distribution(self, y: Tensor) -> Tensor:
        """Return P(target <= y | x): whole panels and a part of one.

        Parameters
        ----------
        y : Tensor of shape (n, k, q)
            Values of each target.

        Returns
        -------
        Tensor of shape (n_members, n, k, q)
            In [0, 1].
        """
        r = self.energy.residuals_of_one(self.heads, y[:, 0])
        edges = panel_edges(r)
        t = place(r).clamp(edges[0], edges[-1])
        width = edges[1] - edges[0]
        panel = ((t - edges[0]) / width).floor().long().clamp(0, N_PANELS - 1)
        points, weights = gauss_legendre(r)
        part = (t - edges[panel])[..., None]
        inside = edges[panel][..., None] + part * points
        mass = (self._log_density_in_t(inside).exp() * weights).sum(3) * part[..., 0]
        p = self.below.gather(2, panel) + mass
        return p.clamp(0, 1)[:, :, None]

    def mean(self) -> Tensor:
        """Return E[y | x].

        Returns
        -------
        Tensor of shape (n, 1)
            In the units of the target.
        """
        r = (self.share * self.nodes.r[:, 0]).sum(2, keepdim=True)
        width = self.heads.log_scale.exp() * self.energy.mixing
        return (self.heads.location + width * r).mean(0)

    def draw(self, n_draws: int, *, generator: Generator) -> Tensor:
        """Return draws, even within the cells of the quadrature's points.

        Parameters
        ----------
        n_draws : int
            Draws per row.
        generator : Generator
            Source of randomness.

        Returns
        -------
        Tensor of shape (n, n_draws, k)
            Draws, row by row.
        """
        members, n, m = self.share.shape
        below = self.share.transpose(0, 1).reshape(n, -1).cumsum(1)
        u = uniform_like(below.new_empty(n, n_draws), generator) * below[:, -1:]
        cell = torch.searchsorted(below, u, right=True).clamp(max=members * m - 1)
        member, node = cell // m, cell % m
        weights = gauss_legendre(self.x)[1]
        edges = panel_edges(self.x)
        width = edges[1] - edges[0]
        first = torch.cat([torch.zeros_like(weights[:1]), weights.cumsum(0)[:-1]])
        within = first[node % N_PER_PANEL]
        jitter = uniform_like(u, generator) * weights[node % N_PER_PANEL]
        t = edges[node // N_PER_PANEL] + width * (within + jitter)
        location = self.heads.location[..., 0].T.gather(1, member)
        scale = (self.heads.log_scale.exp() * self.energy.mixing)[..., 0].T
        return (location + scale.gather(1, member) * stretched(t))[..., None]

    def _log_density_in_t(self, t: Tensor) -> Tensor:
        """Return the log-density of t, shape (n_members, n, q, m), for t like it."""
        shape = t.shape
        r = stretched(t).reshape(shape[0], -1, 1)
        log_p = self.energy.log_base(r).reshape(shape) + log_slope(t)
        if self.energy.n_tilts:
            seen = self.energy.tilt_features(r)
            seen = seen.reshape(*shape[:2], -1, self.energy.n_tilts)
            tilt = (seen @ self.heads.tilt[..., None])[..., 0]
            log_p = log_p + tilt.reshape(shape)
        return log_p - self.log_z[..., None, None]


class CloudLaw(ResponseLaw):
    """The law of several targets, from weighted points.

    Parameters
    ----------
    energy : ResponseEnergy
        In eval mode.
    x : Tensor of shape (n, d)
        Rows.
    """

    def __init__(self, energy: ResponseEnergy, x: Tensor) -> None:
        super().__init__(energy, x)
        self.points = energy.targets(self.heads, self.nodes.r)
        self._sorted: list[tuple[Tensor, Tensor]] = []
        for j in range(energy.n_targets):
            y, order = self.points[..., j].sort(2)
            share = self.share.gather(2, order)
            # Half of a point's mass lies below it.
            self._sorted.append((y.contiguous(), share.cumsum(2) - share / 2))

    def distribution(self, y: Tensor) -> Tensor:
        """Return P(target j <= y | x): linear between the points.

        Parameters
        ----------
        y : Tensor of shape (n, k, q)
            Values of each target.

        Returns
        -------
        Tensor of shape (n_members, n, k, q)
            In [0, 1].
        """
        found = []
        for j, (points, below) in enumerate(self._sorted):
            at = y[:, j].expand(len(points), -1, -1).contiguous()
            right = torch.searchsorted(points, at).clamp(1, N_QUASI - 1)
            y0, y1 = points.gather(2, right - 1), points.gather(2, right)
            p0, p1 = below.gather(2, right - 1), below.gather(2, right)
            step = ((at - y0) / (y1 - y0).clamp(min=1e-300)).clamp(0, 1)
            p = p0 + step * (p1 - p0)
            p = torch.where(at < points[..., :1], 0.0, p)
            found.append(torch.where(at > points[..., -1:], 1.0, p))
        return torch.stack(found, 2)

    def mean(self) -> Tensor:
        """Return E[y | x].

        Returns
        -------
        Tensor of shape (n, k)
            In the units of the targets.
        """
        return (self.share[..., None] * self.points).sum(2).mean(0)

    def draw(self, n_draws: int, *, generator: Generator) -> Tensor:
        """Return draws by importance resampling of fresh points, shared by the rows.

        Parameters
        ----------
        n_draws : int
            Draws per row.
        generator : Generator
            Source of randomness.

        Returns
        -------
        Tensor of shape (n, n_draws, k)
            Draws, row by row.
        """
        energy, (members, n) = self.energy, self.share.shape[:2]
        fresh = drawn_nodes(self.x, 2 * N_QUASI, energy.n_targets, generator)
        below = energy.node_energies(self.heads, fresh).softmax(2).cumsum(2)
        u = uniform_like(self.x.new_empty(members, n, n_draws), generator)
        last = len(fresh.r) - 1
        chosen = torch.searchsorted(below, u, right=True).clamp(max=last)
        scaled = fresh.r[chosen] * self.heads.log_scale.exp()[:, :, None]
        y = self.heads.location[:, :, None] + torch.einsum(
            "inmk,ijk->inmj", scaled, energy.mixing
        )
        pick = uniform_like(self.x.new_empty(n, n_draws), generator) * members
        member = pick.long().clamp(max=members - 1)
        index = member[None, :, :, None].expand(1, -1, -1, y.shape[3])
        return y.gather(0, index)[0]


def response_law(energy: ResponseEnergy, x: Tensor) -> ResponseLaw:
    """Return the law of the targets of rows x.

    Parameters
    ----------
    energy : ResponseEnergy
        In eval mode.
    x : Tensor of shape (n, d)
        Rows.

    Returns
    -------
    ResponseLaw
        From a quadrature for one target, from weighted points for several.
    """
    return (LineLaw if energy.n_targets == 1 else CloudLaw)(energy, x)
