"""Sets of rows: what a hard constraint allows, and the nearest allowed row."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real

import torch
from torch import Tensor

from skebm._params import Params


class Region(Params, ABC):
    """A closed set of rows, a value: it clones, prints and compares.

    References
    ----------
    .. [1] Parikh, Boyd (2014), Proximal algorithms, Foundations and Trends in
       Optimization 1(3).
    """

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Return whether each row lies in the set.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows. A row with NaN lies in no set.

        Returns
        -------
        Tensor of shape (n,)
            Bool.
        """

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Return the nearest row of the set, for each row.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Finite rows.

        Returns
        -------
        Tensor of shape (n, d)
            Rows that the set contains; rows that it contained stay as they are.
        """


@dataclass
class Box(Region):
    """The rows with low <= x <= high in every column.

    Parameters
    ----------
    low, high : float, tuple of float or None
        Bounds for all columns, or one for each; None for no bound. low <= high.

    References
    ----------
    .. [1] Parikh, Boyd (2014), Proximal algorithms, Foundations and Trends in
       Optimization 1(3).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Box
    >>> Box(low=0.0, high=(1.0, 9.0)).project(torch.tensor([[-1.0, 10.0]]))
    tensor([[0., 9.]])
    """

    low: float | tuple[float, ...] | None
    high: float | tuple[float, ...] | None

    def contains(self, x: Tensor) -> Tensor:
        """Return low <= x <= high, shape (n,)."""
        low, high = self._bounds(x)
        return ((x >= low) & (x <= high)).all(1)

    def project(self, x: Tensor) -> Tensor:
        """Return the rows clipped to the bounds, shape (n, d)."""
        low, high = self._bounds(x)
        return torch.minimum(torch.maximum(x, low), high)

    def _bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bounds in the dtype of ``x``, each of shape (d,) or ()."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        rows = _row(low, x, "low"), _row(high, x, "high")
        if not _are_ordered(low, high):
            raise ValueError(
                f"Got low={self.low!r} and high={self.high!r}, but expected "
                "low <= high in every column."
            )
        return rows


@dataclass
class Simplex(Region):
    """The rows of non-negative numbers that sum to one: probabilities, shares.

    The set has no volume, so random proposals in R^d miss it almost surely: project
    them, or start from a `Box` and a penalty on the sum.

    Parameters
    ----------
    tolerance : float, default=1e-5
        How far rounding may put the sum from one. Must be >= 0; float32 rows need
        1e-6.

    References
    ----------
    .. [1] Duchi, Shalev-Shwartz, Singer, Chandra (2008), Efficient projections onto the
       l1-ball for learning in high dimensions, ICML.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Simplex
    >>> Simplex().project(torch.tensor([[1.0, 0.5, -3.0]]))
    tensor([[0.7500, 0.2500, 0.0000]])
    """

    tolerance: float = 1e-5

    def contains(self, x: Tensor) -> Tensor:
        """Return whether entries are >= 0 and sum to one, shape (n,)."""
        if not self.tolerance >= 0:
            raise ValueError(
                f"Got tolerance={self.tolerance!r}, but expected a number >= 0."
            )
        near_one = (x.sum(1) - 1).abs() <= self.tolerance
        return near_one & (x >= 0).all(1)

    def project(self, x: Tensor) -> Tensor:
        """Return max(x - theta, 0), theta such that it sums to one, shape (n, d)."""
        # Shifting a row moves theta alone, and entries 1 below the largest get 0.
        shifted = (x - x.amax(1, keepdim=True)).clamp(min=-1.0)
        ordered = shifted.sort(1, descending=True).values
        rank = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)
        thresholds = (ordered.cumsum(1) - 1) / rank
        n_positive = (ordered > thresholds).sum(1, keepdim=True)
        theta = thresholds.gather(1, n_positive - 1)
        onto = (shifted - theta).clamp(min=0.0)
        onto = onto / onto.sum(1, keepdim=True)
        return torch.where(self.contains(x)[:, None], x, onto)


@dataclass
class Ball(Region):
    """The rows with |x - center| <= radius.

    Parameters
    ----------
    radius : float, default=1.0
        Must be > 0.
    center : float or tuple of float, default=0.0
        One number for all columns, or one for each.

    References
    ----------
    .. [1] Parikh, Boyd (2014), Proximal algorithms, Foundations and Trends in
       Optimization 1(3).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Ball
    >>> Ball(radius=5.0).project(torch.tensor([[6.0, 8.0]]))
    tensor([[3.0000, 4.0000]])
    """

    radius: float = 1.0
    center: float | tuple[float, ...] = 0.0

    def contains(self, x: Tensor) -> Tensor:
        """Return |x - center| <= radius, shape (n,)."""
        distance: Tensor = torch.linalg.vector_norm(x - self._center(x), dim=1)
        return distance <= self.radius

    def project(self, x: Tensor) -> Tensor:
        """Return center + (x - center) radius / |x - center|, shape (n, d)."""
        center = self._center(x)
        offset = x - center
        # Squares of far rows would overflow; outside the ball |scaled| is 1 at least.
        scaled = offset / offset.abs().amax(1, keepdim=True).clamp(min=self.radius)
        length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True).clamp(min=1.0)
        # Rounding must not put a projected row outside.
        size = self.radius + center.abs().amax()
        slack = 4 * x.shape[1] ** 0.5 * torch.finfo(x.dtype).eps * size
        onto = center + scaled * ((self.radius - slack).clamp(min=0.0) / length)
        return torch.where(self.contains(x)[:, None], x, onto)

    def _center(self, x: Tensor) -> Tensor:
        """Return the center in the dtype of ``x``, of shape (d,) or ()."""
        if not 0 < self.radius < math.inf:
            raise ValueError(
                f"Got radius={self.radius!r}, but expected a finite number > 0."
            )
        return _row(self.center, x, "center")


@dataclass
class Mask(Region):
    """The rows that a function allows.

    Parameters
    ----------
    function : callable
        Maps rows (n, d) to bool (n,), each row on its own.
    projection : callable or None, default=None
        Maps rows (n, d) to the nearest allowed rows (n, d), where they are known.

    References
    ----------
    .. [1] Parikh, Boyd (2014), Proximal algorithms, Foundations and Trends in
       Optimization 1(3).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Mask
    >>> Mask(lambda x: x[:, 0] < x[:, 1]).contains(torch.tensor([[1.0, 2.0]]))
    tensor([True])
    """

    function: Callable[[Tensor], Tensor]
    projection: Callable[[Tensor], Tensor] | None = None

    def contains(self, x: Tensor) -> Tensor:
        """Return what the function says, shape (n,)."""
        allowed = self.function(x)
        if allowed.shape != x.shape[:1] or allowed.dtype != torch.bool:
            raise ValueError(
                f"The function of Mask returned {allowed.dtype} of shape "
                f"{tuple(allowed.shape)}, but expected bool of shape {(len(x),)}: one "
                "answer per row."
            )
        return allowed

    def project(self, x: Tensor) -> Tensor:
        """Return what the projection says, shape (n, d)."""
        if self.projection is None:
            raise ValueError(
                "The nearest row that Mask allows is unknown. Pass projection=..., or "
                "use a sampler that rejects, such as RandomWalk, MALA or HMC."
            )
        return torch.where(self.contains(x)[:, None], x, self.projection(x))


def _row(value: float | tuple[float, ...], x: Tensor, name: str) -> Tensor:
    """Return a number () or a row (d,) in the dtype and on the device of ``x``."""
    width = len(value) if isinstance(value, tuple) else None
    if not isinstance(value, tuple | Real) or width not in (None, x.shape[1]):
        raise ValueError(
            f"Got {name}={value!r}, but expected one number, or a tuple of one for "
            f"each of the {x.shape[1]} columns."
        )
    return _constant(value, x.dtype, x.device)


@lru_cache(maxsize=64)
def _constant(
    value: float | tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return a tensor that is copied to its device once."""
    with torch.inference_mode(False):
        return torch.tensor(value, dtype=dtype, device=device)


@lru_cache(maxsize=64)
def _are_ordered(
    low: float | tuple[float, ...], high: float | tuple[float, ...]
) -> bool:
    """Return whether low <= high in every column."""
    return bool(
        (
            torch.tensor(low, dtype=torch.float64)
            <= torch.tensor(high, dtype=torch.float64)
        ).all()
    )
