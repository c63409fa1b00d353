"""Energy minimisation: the nearest minimum of E, for many rows at once."""

from typing import NamedTuple

import torch
from torch import Tensor

from skebm.energies import Energy


class Minima(NamedTuple):
    """Where descent from n starts has ended.

    Attributes
    ----------
    x : Tensor of shape (n, d)
        Places.
    e : Tensor of shape (n,)
        Their energies, not above those of the starts.
    converged : Tensor of shape (n,)
        Whether the gradient is below the tolerance, bool.
    """

    x: Tensor
    e: Tensor
    converged: Tensor


def minimize_energy(
    energy: Energy,
    x: Tensor,
    *,
    n_steps: int = 100,
    tolerance: float = 1e-7,
    memory: int = 20,
) -> Minima:
    """Go down to a minimum of E from every row, by L-BFGS with backtracking.

    All rows move in one batch, and each one has its own curvature pairs and its own
    step length: a row that must step back does not hold up the others.

    Parameters
    ----------
    energy : Energy
        A built, smooth energy; +inf (a hard constraint) turns a step back.
    x : Tensor of shape (n, d)
        Starts, of finite energy.
    n_steps : int, default=100
        Most evaluations of E and its gradient, >= 1.
    tolerance : float, default=1e-7
        A row has converged where no partial derivative exceeds ``tolerance``
        max(1, |x|_inf).
    memory : int, default=20
        Curvature pairs kept per row, >= 1.

    Returns
    -------
    Minima
        Places, energies and whether they converged.

    Raises
    ------
    ValueError
        If a start has no finite energy, or a count is below one.

    References
    ----------
    .. [1] Liu, Nocedal (1989), On the limited memory BFGS method for large scale
       optimization, Mathematical Programming 45.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.samplers import minimize_energy
    >>> found = minimize_energy(Quadratic().build(2), torch.full((3, 2), 9.0))
    >>> found.x.abs().max().item() < 1e-6
    True
    """
    if n_steps < 1 or memory < 1:
        raise ValueError(
            "minimize_energy needs n_steps >= 1 and memory >= 1; got "
            f"n_steps={n_steps}, memory={memory}."
        )
    with torch.no_grad():
        descent = _Descent(energy, x.detach(), tolerance, memory)
        for _ in range(n_steps - 1):
            if bool(descent.converged.all()):
                break
            descent.step()
        return Minima(descent.x, descent.e, descent.converged)


class _Descent:
    """The descent of n rows: places, directions, step lengths, curvature pairs."""

    def __init__(
        self, energy: Energy, x: Tensor, tolerance: float, memory: int
    ) -> None:
        self._energy = energy
        self._tolerance = tolerance
        self._memory = memory
        self.x = x
        self.e, self._grad = energy.value_and_grad(x)
        n_bad = int((~self.e.isfinite()).sum())
        if n_bad:
            raise ValueError(
                f"{n_bad} of {len(x)} starts have an energy that is not finite. Start "
                "inside the constraints and near the data."
            )
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self._scale = 1 / self._grad.norm(dim=1, keepdim=True).clamp(min=1.0)
        self._length = torch.ones_like(self._scale)
        self._direction = -self._scale * self._grad

    @property
    def converged(self) -> Tensor:
        """Rows whose gradient is small, shape (n,)."""
        bound = self._tolerance * self.x.abs().amax(1).clamp(min=1.0)
        small: Tensor = self._grad.abs().amax(1) <= bound
        return small

    def step(self) -> None:
        """Try one step in every row; take it where the energy falls enough."""
        slope = (self._grad * self._direction).sum(1)
        x = self.x + self._length * self._direction
        e, grad = self._energy.value_and_grad(x)
        enough = self.e + 1e-4 * self._length[:, 0] * slope
        # Near the minimum the fall drowns in rounding: then a smaller gradient counts.
        rounding = torch.finfo(e.dtype).eps * 4 * self.e.abs()
        flatter = (e <= self.e + rounding) & (grad.norm(dim=1) < self._grad.norm(dim=1))
        taken = ((e <= enough) | flatter) & grad.isfinite().all(1) & ~self.converged
        rows = taken[:, None]
        moved, turned = x - self.x, grad - self._grad
        self._remember(torch.where(rows, moved, 0), torch.where(rows, turned, 0))
        self.x = torch.where(rows, x, self.x)
        self.e = torch.where(taken, e, self.e)
        self._grad = torch.where(rows, grad, self._grad)
        self._length = torch.where(rows, 1.0, 0.3 * self._length)
        self._direction = torch.where(rows, self._newton(), self._direction)

    def _remember(self, s: Tensor, y: Tensor) -> None:
        """Keep the pair (s, y) in the rows where it has positive curvature."""
        curvature, size = (s * y).sum(1, keepdim=True), y.square().sum(1, keepdim=True)
        good = curvature > 1e-10 * size
        inverse = torch.where(good, 1 / curvature, 0)
        self._scale = torch.where(good, curvature / size, self._scale)
        self._pairs = [*self._pairs, (s, y, inverse)][-self._memory :]

    def _newton(self) -> Tensor:
        """Return the two-loop product -H g, a direction of descent."""
        q = self._grad
        shares = []
        for s, y, inverse in reversed(self._pairs):
            share = inverse * (s * q).sum(1, keepdim=True)
            q = q - share * y
            shares.append(share)
        q = q * self._scale
        for (s, y, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            q = q + s * (share - inverse * (y * q).sum(1, keepdim=True))
        direction: Tensor = -q
        return direction
