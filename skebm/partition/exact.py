"""log Z without chance: the sum over all states, the integral in one or two columns."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from skebm.energies import Energy
from skebm.exceptions import NotNormalizableError
from skebm.partition._reference import (
    CHUNK_ROWS,
    Reference,
    check_at_least,
    dtype_of,
    energies_at,
    refuse_nan,
    refuse_unusable,
    warn,
)
from skebm.partition.estimate import LogPartition, Normalizer

MOST_STATES = 2**30
"""Enumerations beyond this would take hours."""

MOST_DOUBLINGS = 60
"""Box enlargements before an integral counts as infinite: a factor of 1e18."""

COARSE = 1e-4
"""A relative error bound of a quadrature above this is worth a warning."""


@dataclass
class Enumeration(Normalizer):
    """Sum of exp(-E(x)) over every state of discrete columns.

    log Z = log sum_x exp(-E(x)), x in {0, ..., n_values - 1}^d, in double precision.

    Parameters
    ----------
    n_values : int, default=2
        States per column, >= 2; 2 means bits.

    Notes
    -----
    Cost: n_values^d evaluations in chunks of constant memory, refused beyond 2^30.

    References
    ----------
    .. [1] Ackley, Hinton, Sejnowski (1985), A learning algorithm for Boltzmann
       machines, Cognitive Science 9(1).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Energy
    >>> from skebm.partition import Enumeration
    >>> class Bits(Energy):
    ...     def forward(self, x):
    ...         return -x.sum(1)
    >>> round(Enumeration()(Bits(), n_features=3).value, 4)  # 3 log(1 + e)
    3.9398
    """

    n_values: int = 2

    def __call__(
        self,
        energy: Energy,
        *,
        base: Energy | None = None,
        generator: Generator | None = None,
        n_features: int | None = None,
    ) -> LogPartition:
        """Return the sum over all states.

        Parameters
        ----------
        energy : Energy
            E, built.
        base : Energy or None, default=None
            A density over the same columns, read for their number and their device.
        generator : Generator or None, default=None
            Needed with ``base`` only.
        n_features : int or None, default=None
            Number of columns d, where there is no ``base``.

        Returns
        -------
        LogPartition
            The exact value.
        """
        check_at_least(self, "n_values", 2)
        device = next((p.device for p in energy.parameters()), torch.device("cpu"))
        if n_features is None:
            if base is None or generator is None:
                raise ValueError("Enumeration needs n_features, or base and generator.")
            x = Reference(base).sample(1, generator)
            n_features, device = x.shape[1], x.device
        n_states = self.n_values**n_features
        if n_states > MOST_STATES:
            raise ValueError(
                f"Got {self.n_values}^{n_features} states, but Enumeration sums at "
                f"most 2^30. Use AIS() or SMC()."
            )
        total = torch.full((), -torch.inf, dtype=torch.float64)
        for start in range(0, n_states, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, n_states)
            index = torch.arange(start, stop, device=device)
            e = energies_at(energy, self._states(index, n_features))
            refuse_nan(e)
            total = torch.logaddexp(total, (-e).logsumexp(0).cpu())
        value = float(total)
        return LogPartition(value, (value, value), math.inf, repr(self))

    def _states(self, index: Tensor, n_features: int) -> Tensor:
        """Return the digits of the numbers ``index``, shape (n, n_features)."""
        place = self.n_values ** torch.arange(n_features, device=index.device)
        return (index[:, None] // place % self.n_values).double()


class _Panels(NamedTuple):
    """Boxes that tile a region: corner and width (p, d), log of the integral (p,)."""

    low: Tensor
    width: Tensor
    log_mass: Tensor

    def __add__(self, other: "_Panels") -> "_Panels":  # type: ignore[override]
        return _Panels(*(torch.cat(pair) for pair in zip(self, other, strict=True)))

    def keep(self, mask: Tensor) -> "_Panels":
        return _Panels(*(column[mask] for column in self))


@dataclass
class Quadrature(Normalizer):
    """Adaptive Gauss-Lobatto panels in one or two columns.

    Z = sum over panels of sum_k w_k exp(-E(x_k)). The panels tile a box around the
    base density, mean +- half_width standard deviations. The box doubles until its
    outer shell holds less than a share ``tol`` of Z, and the panels halve where the
    halves disagree with the whole, until the disagreements sum to less than ``tol``.

    Parameters
    ----------
    n_nodes : int, default=8
        Nodes per panel and column, >= 3.
    n_panels : int, default=16
        Panels per column of the first box, >= 1. A bump much narrower than
        half_width / (8 n_panels) standard deviations of the base can be missed.
    half_width : float, default=8.0
        Half side of the first box, in standard deviations of the base, > 0.
    tol : float, default=1e-8
        Relative error to reach; 1e-6 at best for an energy in single precision.
    max_evaluations : int, default=4_000_000
        Rows at which the energy is evaluated before the refinement gives up; the
        interval then says what was reached, and beyond 1e-4 `PartitionWarning` is
        raised.

    Notes
    -----
    Limits: smooth energies take some ten thousand evaluations; a curved edge in two
    columns, where the density jumps to 0, reaches about 1e-5.

    References
    ----------
    .. [1] Davis, Rabinowitz (1984), Methods of numerical integration, Academic Press.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.partition import Quadrature
    >>> base, g = Quadratic().build(2), torch.Generator().manual_seed(0)
    >>> estimate = Quadrature()(0.5 * base, base=base, generator=g)
    >>> round(estimate.value, 6), round((0.5 * base).log_partition(), 6)
    (2.531024, 2.531024)
    """

    n_nodes: int = 8
    n_panels: int = 16
    half_width: float = 8.0
    tol: float = 1e-8
    max_evaluations: int = 4_000_000
    most_columns: ClassVar[float] = 2

    def __call__(
        self, energy: Energy, *, base: Energy, generator: Generator
    ) -> LogPartition:
        """Return the integral over all columns; there must be one or two."""
        check_at_least(self, "n_nodes", 3)
        check_at_least(self, "n_panels", 1)
        mean, covariance = Reference(base).moments(generator)
        self.check_columns(len(mean))
        rule = _Rule(energy, self.n_nodes, len(mean), mean.device)
        half = self.half_width * covariance.diagonal().sqrt()
        panels, tail = self._box(rule, mean, half)
        panels, error = self._refine(rule, panels)
        error += tail
        if error > COARSE:
            warn(
                f"The quadrature of log Z reached a relative error of {error:.1e} with "
                f"max_evaluations={self.max_evaluations}; raise it."
            )
        value = float(panels.log_mass.logsumexp(0))
        low, high = math.log1p(-min(error, 1 - 1e-15)), math.log1p(error)
        return LogPartition(value, (value + low, value + high), math.inf, repr(self))

    def _box(self, rule: "_Rule", mean: Tensor, half: Tensor) -> tuple[_Panels, float]:
        """Return panels of a box that holds all mass, and the share of its border."""
        grid = _cells(self.n_panels, mean) / self.n_panels
        panels = rule(
            mean + (2 * grid - 1) * half, (2 * half / self.n_panels).expand_as(grid)
        )
        if panels.log_mass.max() == -torch.inf:
            refuse_unusable(energies_at(rule.energy, panels.low))
        around = _cells(4, mean) / 2 - 1
        middle = around + 0.25
        shell = around[(middle.abs() > 0.5).any(1)]
        for _ in range(MOST_DOUBLINGS):
            half = 2 * half
            border = rule(mean + shell * half, (half / 2).expand_as(shell))
            panels = panels + border
            share = border.log_mass.logsumexp(0) - panels.log_mass.logsumexp(0)
            if share < math.log(self.tol / 8):
                return panels, float(share.exp())
        raise NotNormalizableError(
            f"Got a share {float(share.exp()):.1g} of the mass of exp(-E) at "
            f"{float(half.max()):.1e} from the base, but it must vanish. Add Bowl() to "
            "the energy, or tilt a base density with Tilted(base, energy)."
        )

    def _refine(self, rule: "_Rule", panels: _Panels) -> tuple[_Panels, float]:
        """Halve panels until their errors sum to less than ``tol`` of the mass."""
        error = torch.full_like(panels.log_mass, torch.inf)
        left = self.max_evaluations // (rule.n_nodes * 2 ** panels.low.shape[1])
        tol = max(self.tol, 8 * torch.finfo(rule.dtype).eps)
        while float(error.sum()) > tol and left > 0:
            order = error.argsort()
            small = error[order].cumsum(0) <= tol / 2
            chosen = torch.zeros_like(small)
            chosen[order[~small][-left:]] = True
            left -= int(chosen.sum())
            whole = panels.keep(chosen)
            parts = rule.halve(whole)
            panels = panels.keep(~chosen) + parts
            total = panels.log_mass.logsumexp(0)
            fine = parts.log_mass.view(-1, len(whole.log_mass)).logsumexp(0)
            gap = ((fine - total).exp() - (whole.log_mass - total).exp()).abs()
            # A kink can hide from one comparison, not from two in a row.
            memory = error[chosen].nan_to_num(posinf=0.0) / 64
            n_parts = len(parts.log_mass) // len(gap)
            part = torch.maximum(gap, memory) / n_parts
            error = torch.cat([error[~chosen], part.repeat(n_parts)])
        return panels, float(error.sum())


class _Rule:
    """Gauss-Lobatto nodes of the unit box, applied to exp(-E) panel by panel."""

    def __init__(
        self, energy: Energy, n_nodes: int, n_features: int, device: torch.device
    ) -> None:
        nodes, weights = (t.to(device) for t in _gauss_lobatto(n_nodes))
        axes = [torch.arange(n_nodes, device=device)] * n_features
        index = torch.cartesian_prod(*axes).view(-1, n_features)
        self.energy = energy
        self.dtype = dtype_of(energy, torch.float64)
        self.n_nodes = len(index)
        self.nodes = nodes[index]
        self.log_weights = weights.log()[index].sum(1)

    def __call__(self, low: Tensor, width: Tensor) -> _Panels:
        """Return the panels with the log of their integrals."""
        x = low[:, None] + width[:, None] * self.nodes
        e = energies_at(self.energy, x.flatten(0, 1)).view(x.shape[:2])
        refuse_nan(e.flatten())
        log_mass = (self.log_weights - e).logsumexp(1) + width.log().sum(1)
        return _Panels(low, width, log_mass)

    def halve(self, whole: _Panels) -> _Panels:
        """Return the 2^d parts of each panel, part by part."""
        width = whole.width / 2
        corners = _cells(2, width[0])
        low = (whole.low + corners[:, None] * width).flatten(0, 1)
        return self(low, width.repeat(len(corners), 1))


def _gauss_lobatto(n_nodes: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights on [0, 1]: the ends, and the zeros of P'_{n-1}.

    w_k = 1 / (n (n - 1) P_{n-1}(x_k)^2). Nodes at the ends see a jump or an edge
    that an open rule would leave between its last node and the end of the panel.
    """
    k = torch.arange(1, n_nodes - 2, dtype=torch.float64)
    off = (k * (k + 2) / ((2 * k + 1) * (2 * k + 3))).sqrt()
    inner = torch.linalg.eigvalsh(off.diag(1) + off.diag(-1))[: n_nodes - 2]
    end = torch.ones(1, dtype=torch.float64)
    x = torch.cat([-end, inner, end])
    before, now = torch.ones_like(x), x
    for j in range(2, n_nodes):
        before, now = now, ((2 * j - 1) * x * now - (j - 1) * before) / j
    return (x + 1) / 2, 1 / (n_nodes * (n_nodes - 1) * now.square())


def _cells(n: int, like: Tensor) -> Tensor:
    """Return the corners 0 .. n-1 of the cells of a grid, shape (n^d, d)."""
    line = torch.arange(n, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(*[line] * len(like)).view(-1, len(like))
