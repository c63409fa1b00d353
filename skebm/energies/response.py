"""E(x, y) = -log b(r) + log s(x) - a(x)'c(r): a residual's law, tilted, given x."""

import math
from typing import NamedTuple, Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.energy import Energy
from skebm.energies.member_layers import MemberLayers
from skebm.energies.networks import LAST_SCALE, seeded
from skebm.energies.response_nodes import Nodes, fixed_nodes, log_sum

N_HIDDEN_OF_TILT = 32
"""Hidden units of c, which sees as many numbers as there are targets."""

REACH = 4.0
"""Largest residual that c sees; farther out it is constant."""

LEAST_FREEDOM = 2.0
"""Degrees of freedom are above it, so that means exist."""

LARGEST_LOG_SCALE = 3.0
"""Bound on how far the network moves log s(x)."""


class Heads(NamedTuple):
    """What the members say of n rows.

    Attributes
    ----------
    location : Tensor of shape (n_members, n, k)
        mu(x).
    log_scale : Tensor of shape (n_members, n, k)
        log s(x).
    tilt : Tensor of shape (n_members, n, n_tilts)
        a(x).
    """

    location: Tensor
    log_scale: Tensor
    tilt: Tensor


class ResponseEnergy(Energy):
    """The energy of k targets y given x, normalised over y, as a mean of members.

    A member is E(x, y) = -log b(r) + log det(L S(x)) - a(x)'c(r), with the residual
    r = S(x)^-1 L^-1 (y - mu(x)), S = diag(s(x)), the product b of Student densities
    with learned degrees of freedom, and networks mu, log s, a of x and c of r. The
    integral Z(x) of exp(-E) over y is that of b(r) exp(a(x)'c(r)) over r, which no mu
    or s enters, and is finite, since c is bounded. For one target it is a quadrature
    with 640 points, good to 1e-6; for several an average over 2048 of them. The
    energy is -log of the members' mean of exp(-E) / Z(x).

    Rows are x, then y; columns beyond are ignored.

    Parameters
    ----------
    n_targets : int, default=1
        k >= 1.
    n_members : int, default=5
        Members, >= 1.
    hidden : tuple of int, default=(64, 64)
        Units of each hidden layer of mu, log s and a, which share them.
    n_tilts : int, default=32
        Entries of a and c; 0 leaves b as it is.
    dropout : float, default=0.0
        Share of hidden units, in [0, 1), set to zero in training.

    Attributes
    ----------
    network, features : Module
        mu, log s and a; and c; after `build`.
    coef, intercept : Tensor of shape (n_members, d, k), (n_members, 1, k)
        A linear part of mu, zero until it is set.
    mixing : Tensor of shape (n_members, k, k)
        L, lower triangular.

    References
    ----------
    .. [1] Gustafsson, Danelljan, Bhat, Schon (2020), Energy-based models for deep
       probabilistic regression, ECCV.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import ResponseEnergy
    >>> energy = ResponseEnergy(hidden=(8,)).build(3)
    >>> energy(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    coef: Tensor
    intercept: Tensor
    mixing: Tensor
    reach: Tensor

    def __init__(
        self,
        n_targets: int = 1,
        n_members: int = 5,
        hidden: tuple[int, ...] = (64, 64),
        n_tilts: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_targets = n_targets
        self.n_members = n_members
        self.hidden = hidden
        self.n_tilts = n_tilts
        self.dropout = dropout

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make the weights for rows of ``n_features`` columns, the targets included."""
        generator, k, m = seeded(generator), self.n_targets, self.n_members
        d = n_features - k
        if d < 1:
            raise ValueError(
                f"Got rows of {n_features} columns for {self!r}, but expected at least "
                f"{k + 1}: one or more of x, and then y."
            )
        self.network = MemberLayers(
            m,
            (d, *self.hidden, 2 * k + self.n_tilts),
            nn.SiLU(),
            generator=generator,
            last_scale=LAST_SCALE,
        )
        self.features = MemberLayers(
            m,
            (k, N_HIDDEN_OF_TILT, self.n_tilts),
            nn.Tanh(),
            generator=generator,
            last_scale=2.0,
        )
        with torch.no_grad():
            # Steps of c at all residuals up to the reach, and about as wide as one.
            self.features.weights[0].mul_(3.0)
            self.features.biases[0].mul_(REACH)
        device = generator.device
        self.log_freedom = nn.Parameter(
            torch.full((m, k), math.log(3.0), device=device)
        )
        self.log_width = nn.Parameter(torch.full((m, k), -0.2, device=device))
        self.register_buffer("coef", torch.zeros(m, d, k, device=device))
        self.register_buffer("intercept", torch.zeros(m, 1, k, device=device))
        self.register_buffer("mixing", torch.eye(k, device=device).repeat(m, 1, 1))
        self.register_buffer("reach", torch.full((d,), REACH, device=device))
        return self

    @torch.no_grad()
    def start(
        self,
        member: int,
        coef: Tensor,
        intercept: Tensor,
        mixing: Tensor,
        log_width: Tensor,
        freedom: Tensor,
    ) -> None:
        """Set where a member's training starts.

        Parameters
        ----------
        member : int
            Which one.
        coef, intercept : Tensor of shape (d, k), (1, k)
            Of the linear part of mu.
        mixing : Tensor of shape (k, k)
            L, lower triangular.
        log_width : Tensor of shape (k,)
            log s(x) where the network is zero.
        freedom : Tensor of shape (k,)
            Degrees of freedom, > 2.
        """
        for kept, values in (
            (self.coef, coef),
            (self.intercept, intercept),
            (self.mixing, mixing),
            (self.log_width, log_width),
            (self.log_freedom, (freedom - LEAST_FREEDOM).log()),
        ):
            kept[member] = values

    def forward(self, rows: Tensor) -> Tensor:
        """Return -log p(y | x), shape (n,)."""
        log_p = self.member_log_density(rows)
        e: Tensor = math.log(self.n_members) - log_p.logsumexp(0)
        return e

    def member_log_density(self, rows: Tensor, nodes: Nodes | None = None) -> Tensor:
        """Return log p(y | x) of every member.

        Parameters
        ----------
        rows : Tensor of shape (n, d + k) or (n_members, n, d + k)
            Rows x, y, the same for all members or each member's own.
        nodes : Nodes or None, default=None
            Of the integral Z(x); None is the finest.

        Returns
        -------
        Tensor of shape (n_members, n)
            In nats.
        """
        x, y = self.split(rows)
        heads = self.heads(x)
        e = self.member_energies(heads, self.residuals(heads, y))
        if not self.n_tilts:  # b is normalised
            return -e
        nodes = fixed_nodes(x, self.n_targets) if nodes is None else nodes
        return -e - log_sum(self.node_energies(heads, nodes))

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and y.

        Parameters
        ----------
        rows : Tensor of shape (..., d + k)
            Rows x, y.

        Returns
        -------
        x, y : Tensor of shape (..., d), (..., k)
            Views of the rows.
        """
        d = self.coef.shape[1]
        return rows[..., :d], rows[..., d : d + self.n_targets]

    def heads(self, x: Tensor) -> Heads:
        """Return what the members say of rows x.

        Parameters
        ----------
        x : Tensor of shape (n, d) or (n_members, n, d)
            Rows, the same for all members or each member's own.

        Returns
        -------
        Heads
            Their location, scale and tilt.
        """
        k, shape = self.n_targets, (self.n_members, *x.shape[-2:])
        seen = x.clamp(-self.reach, self.reach).expand(shape)
        out = self.network(seen, self.dropout)
        linear = torch.baddbmm(self.intercept, x.expand(shape), self.coef)
        bend = LARGEST_LOG_SCALE * (out[..., k : 2 * k] / LARGEST_LOG_SCALE).tanh()
        return Heads(
            linear + out[..., :k],
            self.log_width[:, None] + bend,
            out[..., 2 * k :],
        )

    def residuals(self, heads: Heads, y: Tensor) -> Tensor:
        """Return r of targets y, shape (n_members, n, k).

        Parameters
        ----------
        heads : Heads
            Of the rows.
        y : Tensor of shape (n, k) or (n_members, n, k)
            Targets.

        Returns
        -------
        Tensor of shape (n_members, n, k)
            Residuals.
        """
        off = (y - heads.location).transpose(1, 2)
        white: Tensor = torch.linalg.solve_triangular(self.mixing, off, upper=False)
        return white.transpose(1, 2) * (-heads.log_scale).exp()

    def residuals_of_one(self, heads: Heads, y: Tensor) -> Tensor:
        """Return r of many values y of one target, (n, q) to (n_members, n, q).

        Parameters
        ----------
        heads : Heads
            Of the rows.
        y : Tensor of shape (n, q)
            Values of the one target.

        Returns
        -------
        Tensor of shape (n_members, n, q)
            Residuals.
        """
        width = heads.log_scale.exp() * self.mixing
        return (y - heads.location) / width

    def targets(self, heads: Heads, r: Tensor) -> Tensor:
        """Return y = mu + L S r for residuals of shape (m, k).

        Parameters
        ----------
        heads : Heads
            Of n rows.
        r : Tensor of shape (m, k)
            The same residuals for all rows and members.

        Returns
        -------
        Tensor of shape (n_members, n, m, k)
            Targets.
        """
        scaled = heads.log_scale.exp()[:, :, None] * r
        turned = torch.einsum("inmk,ijk->inmj", scaled, self.mixing)
        return heads.location[:, :, None] + turned

    def member_energies(self, heads: Heads, r: Tensor) -> Tensor:
        """Return E(x, y) of every member at residuals r, shape (n_members, n).

        Parameters
        ----------
        heads : Heads
            Of the rows.
        r : Tensor of shape (n_members, n, k)
            Residuals.

        Returns
        -------
        Tensor of shape (n_members, n)
            Before the members are normalised.
        """
        volume = heads.log_scale.sum(2) + self.log_volume()[:, None]
        e = volume - self.log_base(r)
        if self.n_tilts:
            e = e - (heads.tilt * self.tilt_features(r)).sum(2)
        return e

    def node_energies(self, heads: Heads, nodes: Nodes) -> Tensor:
        """Return log of w_m b(r_m) exp(a'c(r_m)), whose sum over m is Z(x).

        Parameters
        ----------
        heads : Heads
            Of n rows.
        nodes : Nodes
            Of the integral over r.

        Returns
        -------
        Tensor of shape (n_members, n, m)
            In nats.
        """
        r = nodes.r.expand(self.n_members, *nodes.r.shape)
        flat = (self.log_base(r) + nodes.log_weight)[:, None]
        if not self.n_tilts:
            return flat.expand(-1, heads.location.shape[1], -1)
        return torch.baddbmm(flat, heads.tilt, self.tilt_features(r).transpose(1, 2))

    def log_base(self, r: Tensor) -> Tensor:
        """Return log b(r) for r of shape (n_members, n, k), shape (n_members, n).

        Parameters
        ----------
        r : Tensor of shape (n_members, n, k)
            Residuals.

        Returns
        -------
        Tensor of shape (n_members, n)
            In nats.
        """
        nu = LEAST_FREEDOM + self.log_freedom.exp()[:, None]
        log_b = (
            ((nu + 1) / 2).lgamma()
            - (nu / 2).lgamma()
            - 0.5 * (math.pi * nu).log()
            - (nu + 1) / 2 * (r * r / nu).log1p()
        )
        total: Tensor = log_b.sum(2)
        return total

    def tilt_features(self, r: Tensor) -> Tensor:
        """Return c(r), shape (n_members, n, n_tilts).

        Parameters
        ----------
        r : Tensor of shape (n_members, n, k)
            Residuals.

        Returns
        -------
        Tensor of shape (n_members, n, n_tilts)
            Constant far out.
        """
        seen: Tensor = self.features(r / (1 + (r / REACH) ** 2).sqrt())
        return seen

    def log_volume(self) -> Tensor:
        """Return log det L of every member, shape (n_members,).

        Returns
        -------
        Tensor of shape (n_members,)
            In nats.
        """
        return self.mixing.diagonal(dim1=1, dim2=2).log().sum(1)
