"""E_t(x) = -(1 - t) log b(x) + t E(x): the geometric path from a base to an energy."""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from skebm.energies import Energy
from skebm.partition._reference import (
    Reference,
    dtype_of,
    energies_at,
    refuse_nan,
    refuse_unusable,
)
from skebm.partition._spread import N_ISLANDS
from skebm.samplers import HMC, ChainState

LONGEST = 8
"""Most leapfrog steps of one move."""

MOST_DENSE = 512
"""Most columns with a dense metric."""

RESAMPLE_BELOW = 0.5
"""Effective share of the particles below which they are drawn anew."""


class Rung(NamedTuple):
    """A place on the path, and the move that fits there."""

    t: float
    step_size: float
    metric: Tensor


class Bridge(Energy):
    """The energy at a place of the path, in double precision."""

    def __init__(self, base: Energy, energy: Energy) -> None:
        super().__init__()
        self.reference = Reference(base)
        # Out of the reach of nn.Module: modes and hooks of the caller's energy stay.
        self._ends = (self.reference.base, energy)
        self.t = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Return E_t(x), shape (n,)."""
        left, right = self.ends(x)
        return self._mix(left, right)

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return -log b(x) and E(x), each of shape (n,)."""
        return self.reference.surprise(x), energies_at(self._ends[1], x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return E_t(x) and its gradient, both detached."""
        base, energy = self._ends
        left, left_grad = base.value_and_grad(x)
        right, right_grad = energy.value_and_grad(x.to(dtype_of(energy, x.dtype)))
        gradient = self._mix(left_grad, right_grad.to(x).nan_to_num(0.0, 0.0, 0.0))
        return self._mix(left + self.reference.log_partition, right.to(x)), gradient

    def _mix(self, left: Tensor, right: Tensor) -> Tensor:
        return (1 - self.t) * left + self.t * right


class Walk:
    """Rows that walk the path from ``t`` on, and the log weights they collect."""

    def __init__(
        self, bridge: Bridge, x: Tensor, t: float, generator: Generator
    ) -> None:
        self.bridge = bridge
        self.bridge.t = t
        self.x = x
        self.log_weights = x.new_zeros(len(x))
        self.generator = generator

    def advance(self, t: float) -> None:
        """Weigh the rows by p_t(x) / p_now(x), up to a constant, and go to t."""
        self.log_weights = self.log_weights + (t - self.bridge.t) * self.gap()
        self.bridge.t = t

    def gap(self) -> Tensor:
        """Return -log b(x) - E(x), shape (n,): -inf where the energy is +inf."""
        left, right = self.bridge.ends(self.x)
        refuse_nan(right)
        return left - right

    def move(self, rung: Rung, n_steps: int) -> float:
        """Move the rows at the present t; return the mean acceptance."""
        length = min(LONGEST, max(1, round(math.pi / 2 / rung.step_size)))
        kernel = HMC(step_size=rung.step_size, metric=rung.metric, n_steps=length)
        state: ChainState = kernel.init(self.bridge, self.x)
        acceptance = 0.0
        for _ in range(n_steps):
            state, info = kernel.step(self.bridge, state, generator=self.generator)
            acceptance += float(info.acceptance.mean()) / n_steps
        self.x = state.x
        return acceptance


class Swarm(Walk):
    """Islands of particles that find the path: temperatures, metrics, step sizes.

    Attributes
    ----------
    log_z : Tensor of shape (N_ISLANDS,)
        Each island's estimate of log Z, up to the weights now carried.
    rungs : list of Rung
        The path so far.
    """

    def __init__(
        self, bridge: Bridge, n_particles: int, effective: float, generator: Generator
    ) -> None:
        n = N_ISLANDS * math.ceil(n_particles / N_ISLANDS)
        super().__init__(bridge, bridge.reference.sample(n, generator), 0.0, generator)
        refuse_unusable(bridge.ends(self.x)[1])
        self.effective = effective
        self.log_z = self.x.new_zeros(N_ISLANDS)
        self.rungs: list[Rung] = []
        self._step_size = min(1.0, self.x.shape[1] ** -0.25)

    def run(self, n_steps: int) -> None:
        """Go from the base to the energy with ``n_steps`` moves at each place."""
        while self.bridge.t < 1:
            self.advance(self.next_place())
            if self.share() < RESAMPLE_BELOW:
                self.resample()
            rung = Rung(self.bridge.t, self._step_size, self._metric())
            acceptance = self.move(rung, n_steps)
            self.rungs.append(rung)
            self._step_size = min(1.6, self._step_size * math.exp(acceptance - 0.8))

    def next_place(self) -> float:
        """Return the t at which the conditional ESS falls to the share wanted.

        CESS(delta) = (sum W u)^2 / sum W u^2, u = exp(delta gap), W the weights.
        """
        log_weights, gap = self.log_weights.log_softmax(0), self.gap()
        low, high = 0.0, 1 - self.bridge.t
        middle = high
        for _ in range(50):
            step = middle * gap
            first = (log_weights + step).logsumexp(0)
            share = (2 * first - (log_weights + 2 * step).logsumexp(0)).exp()
            low, high = (middle, high) if share >= self.effective else (low, middle)
            if low == high:
                return 1.0
            middle = (low + high) / 2
        # Energies of huge range would never arrive.
        return min(1.0, self.bridge.t + max(high, 1e-3 * self.bridge.t, 1e-15))

    def share(self) -> float:
        """Return the effective share of the particles."""
        log_weights = self.log_weights.log_softmax(0)
        return float((-(2 * log_weights).logsumexp(0)).exp()) / len(log_weights)

    def resample(self) -> None:
        """Draw every island's particles anew by weight, evenly spaced."""
        per_island = self.log_weights.view(N_ISLANDS, -1)
        n = per_island.shape[1]
        total = per_island.logsumexp(1)
        self.log_z = self.log_z + total - math.log(n)
        # An island without weight keeps its rows, and its log Z of -inf.
        weights = (per_island - total[:, None]).exp().nan_to_num(1 / n)
        comb = (
            torch.arange(n, device=weights.device)
            + torch.empty_like(total).uniform_(generator=self.generator)[:, None]
        )
        chosen = torch.searchsorted(weights.cumsum(1), comb / n).clamp(max=n - 1)
        islands = self.x.view(N_ISLANDS, n, -1)
        index = chosen[:, :, None].expand(-1, -1, islands.shape[2])
        self.x = islands.gather(1, index).flatten(0, 1)
        self.log_weights = torch.zeros_like(self.log_weights)

    def _metric(self) -> Tensor:
        """Return the Cholesky factor of the weighted covariance, shrunk.

        In many columns it is the diagonal one, shape (d,).
        """
        weights = self.log_weights.softmax(0)
        centred = self.x - weights @ self.x
        n, d = self.share() * len(self.x), self.x.shape[1]
        variance = weights @ centred.square()
        variance = variance.clamp(min=1e-9 * float(variance.max()))
        if d > MOST_DENSE:
            return variance.sqrt()
        shrunk = n / (n + d) * ((weights[:, None] * centred).T @ centred)
        shrunk.diagonal().copy_(variance)
        factor: Tensor = torch.linalg.cholesky(shrunk)
        return factor
