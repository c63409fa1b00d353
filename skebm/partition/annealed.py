"""log Z from weights along a path, walked both ways: annealed importance sampling."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from skebm.energies import Energy
from skebm.partition._path import Bridge, Rung, Swarm, Walk
from skebm.partition._reference import check_at_least, ess_of, warn, warn_if_few
from skebm.partition._spread import (
    N_ISLANDS,
    across_islands,
    bridge_estimate,
    forward_estimate,
    reverse_estimate,
)
from skebm.partition.estimate import LogPartition, Normalizer

PILOT_SHARE, PILOT_STEPS = 0.9, 2
"""Conditional ESS and moves of the population that finds the path."""

N_SETTLE = 3
"""Moves at the energy itself before its draws walk back."""

ROUNDING = 1e-5
"""Intervals of no width this close agree."""


@dataclass
class AIS(Normalizer):
    """Annealed importance sampling, from the base and back.

    Chains walk the path E_t(x) = -(1 - t) log b(x) + t E(x) from t = 0 to 1, and
    log w = sum_k (t_(k+1) - t_k) (-log b(x_k) - E(x_k)) collects what each step adds.
    E[w] = Z for chains from the base, so log mean w is low in expectation; chains that
    walk back from draws of the energy have E[1 / w] = 1 / Z, so -log mean 1 / w is
    high (where E is +inf, times the share of chains that get through). With ``bracket``
    the value is Bennett's acceptance ratio of the two, and `PartitionWarning` is
    raised, with an interval that spans both, where their 95% intervals do not meet. A
    population of particles first finds the temperatures, the metric and the step size
    of the Hamiltonian moves, and the draws to walk back from.

    Parameters
    ----------
    n_chains : int, default=2048
        Chains each way, >= 32, rounded up to a multiple of 16.
    n_temperatures : int, default=100
        Places on the path after the base, >= 1. The variance of log w falls as
        1 / n_temperatures.
    n_steps : int, default=1
        Hamiltonian moves at each temperature, >= 1.
    bracket : bool, default=True
        Walk back too; else the value is the forward one.

    Notes
    -----
    Cost: up to 8 gradients of the energy per chain, temperature and move. Limits: a
    mode that neither the base nor the path leads to is missed from both sides, unless
    rows of the data are given as ``x``.

    References
    ----------
    .. [1] Neal (2001), Annealed importance sampling, Statistics and Computing 11(2).
    .. [2] Bennett (1976), Efficient estimation of free energy differences from Monte
       Carlo data, Journal of Computational Physics 22(2).
    .. [3] Grosse, Ghahramani, Adams (2015), Sandwiching the marginal likelihood using
       bidirectional Monte Carlo, arXiv:1511.02543.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.partition import AIS
    >>> base, g = Quadratic().build(2), torch.Generator().manual_seed(0)
    >>> estimate = AIS(256, n_temperatures=20)(4 * base, base=base, generator=g)
    >>> abs(estimate.value - (4 * base).log_partition()) < 0.1
    True
    """

    n_chains: int = 2048
    n_temperatures: int = 100
    n_steps: int = 1
    bracket: bool = True

    def __call__(
        self,
        energy: Energy,
        *,
        base: Energy,
        generator: Generator,
        x: Tensor | None = None,
    ) -> LogPartition:
        """Return log Z of ``energy``.

        Parameters
        ----------
        energy : Energy
            E, built.
        base : Energy
            A density near that of the energy, with ``sample`` and ``log_partition``.
        generator : Generator
            Source of randomness, on the base's device.
        x : Tensor of shape (n, d) or None, default=None
            Rows from which the chains walk back, after a few moves; particles by
            default. Rows of the data show modes that the path misses, but are draws of
            the energy only where it fits them: a misfit widens the bracket.

        Returns
        -------
        LogPartition
            Estimate, interval, effective sample size, method.
        """
        check_at_least(self, "n_chains", 2 * N_ISLANDS)
        check_at_least(self, "n_temperatures", 1)
        check_at_least(self, "n_steps", 1)
        pilot = Swarm(Bridge(base, energy), self.n_chains, PILOT_SHARE, generator)
        pilot.run(PILOT_STEPS)
        ladder = _refined(pilot.rungs, self.n_temperatures)
        forward = self._ahead(pilot, ladder)
        value, half = across_islands(forward_estimate, forward)
        interval = value - half, value + half
        if self.bracket:
            pilot.resample()
            if x is not None:
                i = torch.empty(len(pilot.x), dtype=torch.long, device=pilot.x.device)
                pilot.x = x.to(pilot.x)[i.random_(len(x), generator=generator)]
            backward = self._back(pilot, ladder)
            value, half = across_islands(bridge_estimate, forward, backward)
            back, width = across_islands(reverse_estimate, forward, backward)
            both = interval, (back - width, back + width)
            interval = bracketed((value - half, value + half), both)
        ess = ess_of(half, forward.numel())
        warn_if_few(ess, forward.numel(), "Use more n_temperatures, or a closer base.")
        return LogPartition(value, interval, ess, repr(self))

    def _ahead(self, pilot: Swarm, ladder: list[Rung]) -> Tensor:
        """Return log w of chains from the base, shape (N_ISLANDS, m)."""
        start = pilot.bridge.reference.sample(len(pilot.x), pilot.generator)
        walk = Walk(pilot.bridge, start, 0.0, pilot.generator)
        for rung in ladder:
            walk.advance(rung.t)
            walk.move(rung, self.n_steps)
        return walk.log_weights.view(N_ISLANDS, -1)

    def _back(self, pilot: Swarm, ladder: list[Rung]) -> Tensor:
        """Return log w of chains to the base from draws of the energy."""
        walk = Walk(pilot.bridge, pilot.x, 1.0, pilot.generator)
        walk.move(ladder[-1], N_SETTLE)
        for rung in ladder[-2::-1]:
            walk.advance(rung.t)
            walk.move(rung, self.n_steps)
        walk.advance(0.0)
        return -walk.log_weights.view(N_ISLANDS, -1)


def _refined(rungs: list[Rung], n_temperatures: int) -> list[Rung]:
    """Return the path with as many places, evenly between those of the pilot."""
    known = [0.0, *(rung.t for rung in rungs)]
    ladder = []
    for k in range(1, n_temperatures):
        at = k * len(rungs) / n_temperatures
        i = int(at)
        t = known[i] + (at - i) * (known[i + 1] - known[i])
        ladder.append(rungs[max(0, round(at) - 1)]._replace(t=t))
    return [*ladder, rungs[-1]]


def bracketed(
    bridge: tuple[float, float], both: tuple[tuple[float, float], ...]
) -> tuple[float, float]:
    """Return the bridge's interval, or the span of both ways where they disagree.

    Parameters
    ----------
    bridge : tuple[float, float]
        Interval of the two-sided estimate.
    both : tuple[tuple[float, float], ...]
        Intervals of the two ways.

    Returns
    -------
    tuple[float, float]
        The bridge's interval, or the span of both ways where they disagree.
    """
    ahead, back = both
    if ahead[0] <= back[1] + ROUNDING and back[0] <= ahead[1] + ROUNDING:
        return bridge
    warn(
        f"log Z is {sum(ahead) / 2:.3f} +- {ahead[1] - sum(ahead) / 2:.3f} from the "
        f"base and {sum(back) / 2:.3f} +- {back[1] - sum(back) / 2:.3f} from draws of "
        "the energy: these disagree, and the interval spans both. Use more "
        "n_temperatures or n_steps, or a closer base."
    )
    ends = [end for interval in (bridge, *both) for end in interval]
    return min(ends), max(ends)
