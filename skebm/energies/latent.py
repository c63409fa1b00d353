"""E(x) = -log integral of exp(-E(x, z)) dz: latent variables integrated out."""

import math
from typing import Self

import torch
from torch import Generator, Tensor

from skebm.energies.energy import Energy
from skebm.energies.networks import seeded

GRID_LATENT = 3
"""Most latent columns for which the nodes are a grid."""

LEAST_CURVATURE = 1e-3
"""Floor on the curvature of the joint energy in z."""

STEP_SIZES = tuple(4.0**-i for i in range(7))
"""Fractions of a Newton step that are tried; where E is flat whole ones are too far."""

N_ROUNDS = 6
"""Rounds in which the spread of the nodes is corrected."""


class LatentVariable(Energy):
    """The marginal of a joint energy over rows x and latent columns z.

    E(x) = -log of the integral of exp(-E_joint([x, z])) dz. For each row, Newton's
    method finds the m of lowest joint energy and the principal directions of its
    curvature; along each of them a spread is chosen at which the joint energy has risen
    by 1/2, as a Gaussian's does in one sd. With these in the columns of A, the nodes
    are z_i = m + A t_i [1]_ and

        E(x) = -log sum_i w_i exp(|t_i|^2 / 2 - E_joint([x, z_i]))
               - log |det A| - (n_latent / 2) log 2 pi.

    The t_i and w_i are a Gauss-Hermite grid for up to three latent columns, and normal
    draws of equal weight beyond: importance sampling. The draws are made once, in
    `build`, so E is a fixed function of x. Gaussian posteriors p(z | x) are integrated
    exactly, by any number of nodes.

    Parameters
    ----------
    joint : Energy
        Energy of d + n_latent columns, the latent ones last, twice differentiable and
        integrable in z: add a prior such as `Quadratic` to a network.
    n_latent : int
        Latent columns, >= 1.
    n_nodes : int, default=16
        Nodes per latent column, >= 1: n_nodes ** n_latent in all, and beyond three
        latent columns 16 * n_nodes * n_latent draws.
    n_newton : int, default=10
        Newton steps, >= 1; the same for all rows, so that rows do not meet.

    Attributes
    ----------
    nodes : Tensor of shape (m, n_latent)
        The t_i.
    log_weights : Tensor of shape (m,)
        log w_i.

    Raises
    ------
    ValueError
        From `build`, if ``n_latent``, ``n_nodes`` or ``n_newton`` is out of range.

    Notes
    -----
    Modes of p(z | x) far from the one that Newton's method finds are missed. Chains
    over [x, z] of ``joint`` sample the same x without this limit.

    References
    ----------
    .. [1] Naylor, Smith (1982), Applications of a method for the efficient computation
       of posterior distributions, Journal of the Royal Statistical Society C 31(3).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import LatentVariable, Quadratic
    >>> energy = LatentVariable(Quadratic(), n_latent=1).build(2)
    >>> e = energy(torch.tensor([[0.0, 0.0], [0.0, 2.0]]))
    >>> round((e[1] - e[0]).item(), 4)
    2.0
    """

    nodes: Tensor
    log_weights: Tensor

    def __init__(
        self, joint: Energy, n_latent: int, n_nodes: int = 16, n_newton: int = 10
    ) -> None:
        super().__init__()
        self.joint = joint
        self.n_latent = n_latent
        self.n_nodes = n_nodes
        self.n_newton = n_newton

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build the joint energy and make the nodes."""
        self.joint.build(n_features + self.n_latent, generator=generator)
        return self.place_nodes(generator=generator)

    def place_nodes(self, *, generator: Generator | None = None) -> Self:
        """Make the nodes for a joint energy that is built already.

        Parameters
        ----------
        generator : Generator or None, default=None
            Source of the draws beyond three latent columns; None stands for the seed 0.

        Returns
        -------
        self : LatentVariable
            The energy, ready to be called.
        """
        if min(self.n_latent, self.n_nodes, self.n_newton) < 1:
            raise ValueError(
                f"Got n_latent={self.n_latent}, n_nodes={self.n_nodes} and "
                f"n_newton={self.n_newton}, but expected each of them >= 1. Use the "
                "joint energy itself where there is nothing to integrate."
            )
        generator = seeded(generator)
        if self.n_latent <= GRID_LATENT:
            nodes, log_weights = hermite_grid(self.n_nodes, self.n_latent)
        else:
            n_draws = 16 * self.n_nodes * self.n_latent
            nodes = torch.empty(n_draws, self.n_latent, device=generator.device)
            nodes.normal_(generator=generator)
            log_weights = nodes.new_full((n_draws,), -math.log(n_draws))
        default = torch.get_default_dtype()
        self.register_buffer("nodes", nodes.to(generator.device, default))
        self.register_buffer("log_weights", log_weights.to(generator.device, default))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the marginal energy, shape (n,)."""
        center, spread, log_volume = self._proposal(x)
        t = self.nodes.to(x.dtype)
        e = self._joint(x, center[:, None] + t @ spread.mT)
        log_terms = self.log_weights.to(x.dtype) + 0.5 * t.square().sum(1) - e
        constant = 0.5 * self.n_latent * math.log(2 * math.pi)
        return -log_terms.logsumexp(1) - log_volume - constant

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return the joint's log Z at temperature 1, else None."""
        return self.joint.log_partition() if temperature == 1.0 else None

    def _joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Return E([x, z]) for m places z of each row, shapes (n, m, k) and (n, m)."""
        rows = torch.cat([x[:, None].expand(-1, z.shape[1], -1), z], 2)
        e: Tensor = self.joint(rows.flatten(0, 1)).reshape(z.shape[:2])
        return e

    def _proposal(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return m (n, k), A (n, k, k) and log |det A| (n,), all fixed.

        The integral does not depend on where its nodes lie, so no gradient flows
        through them.
        """
        with torch.inference_mode(False), torch.enable_grad():
            fixed = x.detach().clone()
            center = fixed.new_zeros(len(fixed), self.n_latent)
            for _ in range(self.n_newton):
                center = self._newton_step(fixed, center)
            curvature, basis = self._curvature(fixed, center)[1:]
        with torch.no_grad():
            scale = self._scale(fixed, center, curvature.rsqrt(), basis)
        return center, basis * scale[:, None], scale.log().sum(1)

    def _newton_step(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the lowest of z and some places along the Newton direction."""
        gradient, curvature, basis = self._curvature(x, z)
        along = (basis.mT @ gradient[:, :, None]).squeeze(2) / curvature
        step = (basis @ along[:, :, None]).squeeze(2)
        places = torch.stack([z, *(z - size * step for size in STEP_SIZES)], 1)
        with torch.no_grad():
            best = self._joint(x, places).argmin(1)
        return places[torch.arange(len(x), device=x.device), best]

    def _scale(self, x: Tensor, m: Tensor, scale: Tensor, basis: Tensor) -> Tensor:
        """Return sds along the basis at which E has risen by 1/2, shape (n, k).

        E rises like scale^2 or, where it is flat, scale^4; the power 1/4 fits both.
        """
        bottom = self._joint(x, m[:, None])
        for _ in range(N_ROUNDS):
            offsets = (basis * scale[:, None]).mT
            ends = self._joint(
                x, torch.cat([m[:, None] + offsets, m[:, None] - offsets], 1)
            )
            rise = 0.5 * sum(ends.chunk(2, 1)) - bottom
            scale = scale * (0.5 / rise.clamp(min=1e-9)).pow(0.25).clamp(0.1, 2.0)
        return scale

    def _curvature(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return dE/dz and the Hessian in z as |eigenvalues|, eigenvectors."""
        leaf = z.detach().requires_grad_(True)
        e = self.joint(torch.cat([x, leaf], 1))
        (gradient,) = torch.autograd.grad(e.sum(), leaf, create_graph=True)
        columns = [
            torch.autograd.grad(part.sum(), leaf, retain_graph=True)[0]
            for part in gradient.unbind(1)
        ]
        hessian = torch.stack(columns, 1)
        values, basis = torch.linalg.eigh(0.5 * (hessian + hessian.mT))
        curvature = values.abs().clamp(min=LEAST_CURVATURE)
        return gradient.detach(), curvature, basis


def hermite_grid(n_nodes: int, n_columns: int) -> tuple[Tensor, Tensor]:
    """Return the Gauss-Hermite grid for the standard normal density.

    The nodes are the eigenvalues of the Jacobi matrix of the Hermite polynomials [1]_,
    and the weights 1 / sum_j h_j(node)^2 over the n_nodes orthonormal polynomials h_j.

    Parameters
    ----------
    n_nodes : int
        Nodes per column; exact for polynomials up to degree 2 n_nodes - 1.
    n_columns : int
        Columns.

    Returns
    -------
    nodes : Tensor of shape (n_nodes ** n_columns, n_columns)
        Float64.
    log_weights : Tensor of shape (n_nodes ** n_columns,)
        Logarithms of weights that sum to one.

    References
    ----------
    .. [1] Golub, Welsch (1969), Calculation of Gauss quadrature rules, Mathematics of
       Computation 23(106).
    """
    beside = torch.arange(1, n_nodes, dtype=torch.float64).sqrt()
    values = torch.linalg.eigvalsh(beside.diag(1) + beside.diag(-1))
    # Eigenvectors would give the tiny weights of far nodes to no relative precision.
    before, here = torch.zeros_like(values), torch.ones_like(values)
    total = torch.ones_like(values)
    for j in range(1, n_nodes):
        after = (values * here - (j - 1) ** 0.5 * before) / j**0.5
        before, here = here, after
        total = total + here.square()
    log_weights = -total.log()
    nodes = torch.cartesian_prod(*[values] * n_columns).reshape(-1, n_columns)
    grid = torch.cartesian_prod(*[log_weights] * n_columns).reshape(-1, n_columns)
    return nodes, grid.sum(1)
