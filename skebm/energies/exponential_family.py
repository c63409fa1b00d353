"""E(x) = -theta' T(x): the exponential family of given statistics."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.energy import Energy

MAX_NEWTON = 200
"""Newton steps of `match`; ten are usual."""


class ExponentialFamily(Energy):
    """The exponential family of given statistics, linear in its parameters.

    E(x) = -theta' T(x). Among all densities with the same means of T, the one of this
    form has maximum entropy [1]_, and its theta makes the likelihood of data with those
    means largest. `match` finds it where the rows can be listed; any objective for
    energies learns it elsewhere.

    Parameters
    ----------
    statistics : callable
        T: maps rows (n, d) to statistics (n, n_statistics), differentiable, each row by
        itself. A function of a module, if the energy is to be pickled.
    n_statistics : int
        Number of statistics, >= 1.

    Attributes
    ----------
    theta : Parameter of shape (n_statistics,)
        Natural parameters; zeros after `build`, a constant energy.

    Raises
    ------
    ValueError
        If the statistics have another shape.

    References
    ----------
    .. [1] Jaynes (1957), Information theory and statistical mechanics, Physical
       Review 106(4).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import ExponentialFamily
    >>> dice = torch.arange(1.0, 7.0)[:, None]
    >>> loaded = ExponentialFamily(torch.clone, n_statistics=1)
    >>> e = loaded.match(torch.tensor([4.5]), dice)(dice)
    >>> [round(p, 3) for p in torch.softmax(-e, 0).tolist()]
    [0.054, 0.079, 0.114, 0.165, 0.24, 0.347]
    """

    theta: nn.Parameter

    def __init__(
        self, statistics: Callable[[Tensor], Tensor], n_statistics: int
    ) -> None:
        super().__init__()
        self.statistics = statistics
        self.n_statistics = n_statistics

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Start at theta = 0."""
        self.theta = nn.Parameter(torch.zeros(self.n_statistics))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return -theta' T(x), shape (n,)."""
        return -(self._checked(x) @ self.theta)

    def match(
        self, moments: Tensor, nodes: Tensor, weights: Tensor | None = None
    ) -> Self:
        """Find the theta whose means of T over a list of rows are ``moments``.

        Newton's method with step halving, in float64, on the convex function
        log sum_i w_i exp(theta' T(x_i)) - theta' m.

        Parameters
        ----------
        moments : Tensor of shape (n_statistics,)
            Means m of T, for instance over data.
        nodes : Tensor of shape (n, d)
            Every row of a finite domain, or the nodes of a quadrature rule.
        weights : Tensor of shape (n,), default=None
            Positive weights of the nodes; equal by default.

        Returns
        -------
        self : ExponentialFamily
            The maximum-entropy energy, in the dtype of ``moments``.

        Raises
        ------
        ValueError
            If no density on the nodes has these moments.
        """
        values = self._checked(nodes).detach().double()
        log_weights = values.new_zeros(len(values))
        if weights is not None:
            log_weights = weights.double().log()
        theta = _newton(moments.double(), values, log_weights)
        if theta is None:
            raise ValueError(
                f"Got moments={moments.tolist()}, but expected means that some density "
                "on the nodes has, inside the convex hull of its statistics. Widen the "
                "nodes, or pass moments computed from rows among them."
            )
        self.theta = nn.Parameter(theta.to(moments.dtype))
        return self

    def _checked(self, x: Tensor) -> Tensor:
        """Return T(x), shape (n, n_statistics)."""
        values = self.statistics(x)
        if values.shape != (len(x), self.n_statistics):
            raise ValueError(
                f"Got statistics of shape {tuple(values.shape)} for {len(x)} rows, but "
                f"expected {(len(x), self.n_statistics)}. Return one line per row, and "
                "set n_statistics to the number of columns."
            )
        return values


def _newton(moments: Tensor, values: Tensor, log_weights: Tensor) -> Tensor | None:
    """Minimise logsumexp(values theta + log_weights) - theta' moments; None if none."""
    # Statistics on one scale, so that one tolerance fits them all.
    center, scale = values.mean(0), values.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    z, target = (values - center) / scale, (moments - center) / scale
    theta = torch.zeros_like(target)

    def objective(point: Tensor) -> Tensor:
        return (z @ point + log_weights).logsumexp(0) - point @ target

    for _ in range(MAX_NEWTON):
        p = (z @ theta + log_weights).softmax(0)
        gap = target - p @ z
        if gap.abs().max() < 1e-10:
            return theta / scale
        spread = z - p @ z
        covariance = spread.T @ (p[:, None] * spread)
        step = torch.linalg.pinv(covariance, hermitian=True) @ gap
        value, slope, size = objective(theta), gap @ step, 1.0
        rounding = 1e-14 * (1 + value.abs())
        while objective(theta + size * step) > value - 0.25 * size * slope + rounding:
            size *= 0.5
            if size < 1e-10:
                return None
        theta = theta + size * step
    return None
