"""log Z of a machine: annealed Gibbs steps from a start that is known, and back."""

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from skebm.energies import Energy
from skebm.partition._reference import check_at_least, ess_of, warn_if_few
from skebm.partition._spread import (
    N_ISLANDS,
    across_islands,
    bridge_estimate,
    forward_estimate,
    reverse_estimate,
)
from skebm.partition.annealed import bracketed
from skebm.partition.estimate import LogPartition, Normalizer

N_SETTLE = 20
"""Gibbs steps at the model itself before the chains walk back."""


class GibbsPath(ABC):
    """The densities between a start whose log Z is known, t = 0, and a machine, t = 1.

    A subclass sets ``log_start``, log Z at t = 0.
    """

    log_start: float

    @abstractmethod
    def start(self, n: int) -> Tensor:
        """Return ``n`` draws at t = 0."""

    @abstractmethod
    def near(self, rows: Tensor) -> Tensor:
        """Return states of chains that start at rows of the data."""

    @abstractmethod
    def move(self, states: Tensor, t: float) -> Tensor:
        """Return states after a Gibbs step at t."""

    @abstractmethod
    def leap(self, states: Tensor, now: float, then: float) -> tuple[Tensor, Tensor]:
        """Return E_now - E_then of the states, and these after a step at ``then``."""

    def walk(self, states: Tensor, times: list[float]) -> tuple[Tensor, Tensor]:
        """Return the ends of chains along ``times`` and log Z_0 + their log w."""
        log_w = torch.full((len(states),), self.log_start, dtype=torch.float64)
        log_w = log_w.to(states.device)
        for now, then in itertools.pairwise(times):
            rise, states = self.leap(states, now, then)
            log_w += rise.double()
        return states, log_w


@dataclass
class GibbsAnnealing(Normalizer):
    """Annealed importance sampling along a `GibbsPath`, there and back.

    Parameters
    ----------
    n_chains : int, default=256
        Chains each way, >= 32, rounded down to a multiple of 16.
    n_temperatures : int, default=1000
        Places on the path, >= 1, evenly spread over t in (0, 1].
    bracket : bool, default=True
        Walk back too; else the value is the forward one.

    References
    ----------
    .. [1] Neal (2001), Annealed importance sampling, Statistics and Computing 11(2).
    """

    n_chains: int = 256
    n_temperatures: int = 1000
    bracket: bool = True

    @abstractmethod
    def _path(
        self,
        energy: Energy,
        base: Energy | None,
        x: Tensor | None,
        generator: Generator,
    ) -> GibbsPath:
        """Return the way to a built machine."""

    def __call__(
        self,
        energy: Energy,
        *,
        base: Energy | None = None,
        generator: Generator,
        x: Tensor | None = None,
    ) -> LogPartition:
        """Return log Z of a machine.

        Parameters
        ----------
        energy : Energy
            A machine of the kind that this normaliser is for, built.
        base : Energy or None, default=None
            Where the path starts; None leaves that to ``x`` or to the energy.
        generator : Generator
            Source of randomness, on the energy's device.
        x : Tensor of shape (n, d) or None, default=None
            Rows of the data.

        Returns
        -------
        LogPartition
            Estimate, interval, effective sample size, method.
        """
        ahead, behind = self.both_ways(energy, base=base, generator=generator, x=x)
        value, half = across_islands(forward_estimate, ahead)
        interval = value - half, value + half
        if behind is not None:
            value, half = across_islands(bridge_estimate, ahead, behind)
            back, width = across_islands(reverse_estimate, ahead, behind)
            both = interval, (back - width, back + width)
            interval = bracketed((value - half, value + half), both)
        ess = ess_of(half, ahead.numel())
        warn_if_few(ess, ahead.numel(), "Use more n_temperatures or n_chains.")
        return LogPartition(value, interval, ess, repr(self))

    def both_ways(
        self,
        energy: Energy,
        *,
        base: Energy | None = None,
        generator: Generator,
        x: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return log weights, whose log mean exp is log Z: from the base and back.

        Parameters
        ----------
        energy, base, generator, x : object
            As in a call.

        Returns
        -------
        ahead : Tensor of shape (16, n_chains / 16)
            log w of chains from the base, in islands that share nothing.
        behind : Tensor of the same shape or None
            Minus log w of chains from the energy: E[exp(-behind)] = 1 / Z.
        """
        check_at_least(self, "n_chains", 2 * N_ISLANDS)
        check_at_least(self, "n_temperatures", 1)
        path = self._path(energy, base, x, generator)
        n = self.n_chains // N_ISLANDS * N_ISLANDS
        times = torch.linspace(0, 1, self.n_temperatures + 1).tolist()
        with torch.no_grad():
            states, ahead = path.walk(path.start(n), times)
            if not self.bracket:
                return ahead.view(N_ISLANDS, -1), None
            if x is not None:
                rows = torch.randint(
                    len(x), (n,), generator=generator, device=states.device
                )
                states = path.near(x.to(states)[rows])
            for _ in range(N_SETTLE):
                states = path.move(states, 1.0)
            _, back = path.walk(states, times[::-1])
        behind = 2 * path.log_start - back
        return ahead.view(N_ISLANDS, -1), behind.view(N_ISLANDS, -1)
