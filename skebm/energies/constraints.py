"""Energies under constraints: +inf outside a region, or a penalty that grows."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Generator, Tensor

from skebm.energies.energy import Energy
from skebm.energies.regions import Region


class Constrained(Energy):
    """An energy cut to a region: E(x) inside, +inf outside.

    p is the part's density truncated to the region. Metropolis-type samplers reject
    rows outside; `project` takes rows back for those that cannot. The gradient is the
    part's everywhere, finite also outside, so a trajectory that crosses the border
    stays finite until it is rejected.

    Parameters
    ----------
    part : Energy
        The energy inside.
    region : Region
        `Box`, `Simplex`, `Ball` or `Mask`.

    References
    ----------
    .. [1] Neal (2011), MCMC using Hamiltonian dynamics, Handbook of Markov Chain Monte
       Carlo, Chapman and Hall.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Box, Constrained, Quadratic
    >>> positive = Constrained(Quadratic().build(1), Box(low=0.0, high=None))
    >>> positive(torch.tensor([[2.0], [-2.0]])).tolist()
    [2.0, inf]
    """

    def __init__(self, part: Energy, region: Region) -> None:
        super().__init__()
        self.part = part
        self.region = region

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build the part."""
        self.part.build(n_features, generator=generator)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the part's energy inside and +inf outside, shape (n,)."""
        return self._walled(x, self.part(x))

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return E(x) and the part's gradient; 0 where the part has none outside."""
        e, gradient = self.part.value_and_grad(x)
        e = self._walled(x, e)
        outside = (e == torch.inf)[:, None]
        return e, torch.where(outside, gradient.nan_to_num(0.0, 0.0, 0.0), gradient)

    def project(self, x: Tensor) -> Tensor:
        """Return the nearest row of the region, for each row.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n, d)
            Rows of finite energy.
        """
        return self.region.project(x)

    def _walled(self, x: Tensor, e: Tensor) -> Tensor:
        """Return ``e`` (n,) with +inf outside the region."""
        inside = self.region.contains(x)
        # Adding the wall, unlike choosing it, keeps the part's gradient outside.
        walled = e + torch.zeros_like(e).masked_fill(~inside, torch.inf)
        # A part that is not defined outside answers NaN there.
        return torch.where(inside | ~walled.isnan(), walled, torch.inf)


class Penalized(Energy):
    """An energy with a soft constraint.

    E(x) = E_part(x) + (w / 2) c(x), c the square of how far the row is from holding
    the constraint. At the minimum of E the violation falls as 1 / w. Every row pays for
    itself.

    Parameters
    ----------
    part : Energy
        The energy without the constraint.
    penalty : {"sum_to_one", "non_negative", "norm"} or callable
        c, a function of this module by name, or one that maps rows (n, d) to
        penalties (n,), each row on its own.
    weight : float
        w >= 0, in units of energy per squared violation.

    References
    ----------
    .. [1] Nocedal, Wright (2006), Numerical optimization, chapter 17, Springer.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Penalized, Quadratic
    >>> shares = Penalized(Quadratic().build(2), "sum_to_one", weight=8.0)
    >>> shares(torch.tensor([[1.0, 1.0]])).item()  # 1 + (8 / 2) * 1
    5.0
    """

    def __init__(
        self, part: Energy, penalty: str | Callable[[Tensor], Tensor], weight: float
    ) -> None:
        super().__init__()
        self.part = part
        self.penalty = penalty
        self.weight = weight

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build the part."""
        self.part.build(n_features, generator=generator)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the part's energy plus the penalty, shape (n,)."""
        if not self.weight >= 0:
            raise ValueError(f"Got weight={self.weight!r}, but expected a number >= 0.")
        paid = self._function()(x)
        if paid.shape != x.shape[:1]:
            raise ValueError(
                f"The penalty returned shape {tuple(paid.shape)}, but expected "
                f"{(len(x),)}: one number per row, not summed over rows."
            )
        e: Tensor = self.part(x) + 0.5 * self.weight * paid
        return e

    def _function(self) -> Callable[[Tensor], Tensor]:
        """Return the penalty as a function."""
        if not isinstance(self.penalty, str):
            return self.penalty
        if self.penalty not in _PENALTIES:
            raise ValueError(
                f"Got penalty={self.penalty!r}, but expected a function or one of "
                f"{sorted(_PENALTIES)}."
            )
        return _PENALTIES[self.penalty]


def sum_to_one(x: Tensor) -> Tensor:
    """Return (sum_j x_j - 1)^2.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows.

    Returns
    -------
    Tensor of shape (n,)
        Penalties.
    """
    return (x.sum(1) - 1).square()


def non_negative(x: Tensor) -> Tensor:
    """Return sum_j min(x_j, 0)^2.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows.

    Returns
    -------
    Tensor of shape (n,)
        Penalties.
    """
    return x.clamp(max=0).square().sum(1)


def norm(x: Tensor) -> Tensor:
    """Return (|x|^2 - 1)^2 / 4, which is (|x| - 1)^2 near norm one and smooth at 0.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Rows.

    Returns
    -------
    Tensor of shape (n,)
        Penalties.
    """
    return 0.25 * (x.square().sum(1) - 1).square()


_PENALTIES = {"sum_to_one": sum_to_one, "non_negative": non_negative, "norm": norm}
