"""Is the integral of exp(-E) finite? E must rise faster than d log r far away."""

import math

import torch
from torch import Generator, Tensor

from skebm.energies import Energy
from skebm.exceptions import NotNormalizableError
from skebm.partition._reference import dtype_of, energies_at

NEAR, FAR = 1e3, 1e4
"""Radii, in units of ``scale``, between which the energy must rise."""

N_RANDOM, MOST_AXES, N_WORST, N_DESCENT = 128, 512, 8, 60
"""Random directions, coordinate axes, directions to worsen, steps of the search."""


def check_normalizable(
    energy: Energy,
    n_features: int,
    *,
    center: Tensor | None = None,
    scale: Tensor | float = 1.0,
    generator: Generator,
) -> None:
    """Raise unless the energy rises fast enough in every direction that is tried.

    In d columns exp(-E) is integrable if E(center + r scale u) - d log r grows without
    bound along every ray u, and not if it falls along a cone of them. Tried are random
    directions, the axes, the eigenvectors of the mean curvature, and the flattest
    directions that descent on the unit sphere finds from these, between the radii 1e3
    and 1e4.

    Parameters
    ----------
    energy : Energy
        E, built.
    n_features : int
        Number of columns d, >= 1.
    center : Tensor of shape (d,) or None, default=None
        Where the rays start: the mean of the rows; None means 0.
    scale : Tensor of shape (d,) or float, default=1.0
        Unit of the radius: the standard deviations of the rows.
    generator : Generator
        Source of the directions, on the device of the energy.

    Raises
    ------
    NotNormalizableError
        If along some ray the energy rises by less than d log 10 from one radius to
        the other, or is NaN there.

    Notes
    -----
    The check is numeric: passing it is evidence, no proof. It misses a cone too narrow
    for the search inside a hard constraint, where +inf gives descent no slope.

    References
    ----------
    .. [1] LeCun, Chopra, Hadsell, Ranzato, Huang (2006), A tutorial on energy-based
       learning, Predicting Structured Data, MIT Press.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.partition import check_normalizable
    >>> g = torch.Generator().manual_seed(0)
    >>> check_normalizable(Quadratic().build(2), 2, generator=g)
    """
    if n_features < 1:
        raise ValueError(f"Got n_features={n_features}, but expected >= 1.")
    device = generator.device
    dtype = dtype_of(energy, torch.float64)
    start = torch.zeros(n_features, dtype=dtype, device=device)
    start = start if center is None else center.to(start)
    ray = _Rays(energy, start, torch.as_tensor(scale, dtype=dtype, device=device))
    u = torch.cat([_directions(n_features, dtype, generator), ray.curvature()])
    rise = ray.rise(u)
    worst = rise.argsort()[:N_WORST]
    if float(rise[worst[0]]) > ray.least:
        rise = ray.rise(ray.descend(u[worst]))
    if not float(rise.min()) > ray.least:
        raise NotNormalizableError(
            f"Got an energy that changes by {float(rise.min()):.3g} between the radii "
            f"{NEAR:.0e} and {FAR:.0e} along its flattest ray, but exp(-E) has a "
            f"finite integral over {n_features} columns only if it rises by more than "
            f"{ray.least:.3g}. Add Bowl() to the energy, tilt a base density with "
            "Tilted(base, energy), or keep rows in a box with "
            "Constrained(energy, Box(low, high))."
        )


class _Rays:
    """The rise of an energy between two radii, as a function of the direction."""

    def __init__(self, energy: Energy, center: Tensor, scale: Tensor) -> None:
        self.energy = energy
        self.center = center
        self.scale = scale
        self.least = len(center) * math.log(FAR / NEAR)

    def points(self, u: Tensor) -> Tensor:
        """Return the near and the far rows of the rays, shape (2 n, d)."""
        u = u / u.norm(dim=1, keepdim=True)
        return torch.cat([self.center + r * self.scale * u for r in (NEAR, FAR)])

    def rise(self, u: Tensor) -> Tensor:
        """Return the rise, shape (n,): +inf beyond a hard constraint, -inf for NaN."""
        near, far = energies_at(self.energy, self.points(u)).chunk(2)
        rise = (far - near).masked_fill(far == torch.inf, torch.inf)
        return rise.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)

    def curvature(self) -> Tensor:
        """Return the eigenvectors, both ways, of the Hessian between far points."""
        d = min(len(self.center), MOST_AXES)
        axes = torch.eye(len(self.center)).to(self.center)[:d]
        gradient = self.energy.grad(self.points(torch.cat([axes, -axes])))
        ahead, behind = (
            (self.scale * gradient).nan_to_num(0.0, 0.0, 0.0)[2 * d :].chunk(2)
        )
        if d < len(self.center):
            return axes
        hessian = ahead - behind
        vectors = torch.linalg.eigh(hessian + hessian.T).eigenvectors.T
        return torch.cat([vectors, -vectors])

    def descend(self, u: Tensor) -> Tensor:
        """Return directions of less rise, by L-BFGS on asinh of the rise."""
        best, least = u.clone(), self.rise(u)
        v = u.clone().requires_grad_(True)
        search = torch.optim.LBFGS(
            [v], max_iter=N_DESCENT, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            near, far = self.energy(self.points(v)).chunk(2)
            rise = ((far - near) / self.least).asinh()
            total = torch.where(rise.isfinite(), rise, 0 * v.sum(1)).sum()
            search.zero_grad()
            (v.grad,) = torch.autograd.grad(total, v)
            v.grad.nan_to_num_(0.0, 0.0, 0.0)
            value: Tensor = total.detach()
            return value

        with torch.inference_mode(False), torch.enable_grad():
            search.step(loss)  # type: ignore[no-untyped-call]
        found = v.detach()
        rise = self.rise(found)
        return torch.where((rise < least)[:, None], found, best)


def _directions(n_features: int, dtype: torch.dtype, generator: Generator) -> Tensor:
    """Return random directions and, in few columns, the axes both ways."""
    u = torch.empty(N_RANDOM, n_features, dtype=dtype, device=generator.device)
    u.normal_(generator=generator)
    axes = torch.eye(n_features, dtype=dtype, device=u.device)[:MOST_AXES]
    return torch.cat([u / u.norm(dim=1, keepdim=True), axes, -axes])
