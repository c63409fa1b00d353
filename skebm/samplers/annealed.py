"""Annealed Langevin: from a wide, smooth density down to the one that is wanted."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Generator, Tensor

from skebm.energies import AtLevel, Energy, NoiseConditional
from skebm.samplers.langevin import MALA
from skebm.samplers.sampler import (
    ChainState,
    Sampler,
    StepInfo,
    Warmup,
    check_positive,
    state_with_grad,
)


@dataclass(eq=False)
class AnnealedLangevin(Sampler):
    """Langevin steps on a geometric ladder of levels, which the warm-up walks down.

    A noise-conditional energy has E(x; s) at noise level s: the ladder leads from
    s = ``widest`` to the level at which the energy is read. Other energies have a
    ladder of temperatures instead, from w^2 T to T with w = ``widest``. Every step is
    that of `MALA`, so each level is sampled without bias.

    Parameters
    ----------
    step_size : float or None, default=None
        eps > 0 in units of s^2, or for temperatures in squared units of x. None is
        tuned on the way to a mean acceptance of .574 at every level.
    temperature : float, default=1.0
        T > 0.
    widest : float, default=10.0
        First noise level, as wide as the data are spread, or square root of the first
        temperature over T; > 0.
    n_levels : int, default=20
        Levels of the ladder, >= 1.

    Notes
    -----
    Chains choose their mode on the way down and stay there: run many chains from
    random starts and keep one draw of each. A ladder of temperatures meets the modes
    at their widths rather than at their weights; see `ParallelTempering` for both.

    References
    ----------
    .. [1] Song, Ermon (2019), Generative modeling by estimating gradients of the data
       distribution, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Denoiser
    >>> from skebm.samplers import AnnealedLangevin, run_chains
    >>> generator = torch.Generator().manual_seed(0)
    >>> energy = Denoiser(hidden=(8,)).build(2, generator=generator)
    >>> x = 10 * torch.randn(50, 2, generator=generator)
    >>> chains = run_chains(
    ...     AnnealedLangevin(), energy, x, n_draws=1, generator=generator
    ... )
    >>> chains.draws.shape
    torch.Size([1, 50, 2])
    """

    step_size: float | None = None
    temperature: float = 1.0
    widest: float = 10.0
    n_levels: int = 20

    @property
    def n_warmup(self) -> int:
        """Steps of a usual warm-up with 64 chains or more."""
        return 25 * self.n_levels

    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains that start at the rows x, shape (n, d)."""
        check_positive(
            self,
            step_size=self.step_size,
            temperature=self.temperature,
            widest=self.widest,
            n_levels=self.n_levels,
        )
        return state_with_grad(energy, x)

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one step at the last level."""
        level = self.rung(energy, 1.0)
        kernel = MALA(self.step_size, level.temperature)
        kernel.step_size = kernel.known_step_size() * level.unit
        return kernel.step(level.energy, state, generator=generator)

    def warm_up(self, n_steps: int) -> Warmup:
        """Return the walk down the ladder.

        Parameters
        ----------
        n_steps : int
            Number of steps, shared by the levels.

        Returns
        -------
        Warmup
            The walk.
        """
        return _Descent(self, n_steps)

    def rung(self, energy: Energy, progress: float) -> "Rung":
        """Return one level of the ladder.

        Parameters
        ----------
        energy : Energy
            E.
        progress : float
            0 at the first level, 1 at the last.

        Returns
        -------
        Rung
            The level.
        """
        if not isinstance(energy, NoiseConditional | AtLevel):
            heat = self.widest ** (2 * (1 - progress))
            return Rung(energy, self.temperature * heat, 1.0)
        ratio = max(1.0, self.widest / energy.sigma)
        sigma = energy.sigma * ratio ** (1 - progress)
        family = energy.part if isinstance(energy, AtLevel) else energy
        return Rung(family.at(sigma), self.temperature, sigma**2)


class Rung(NamedTuple):
    """One level of a ladder.

    Attributes
    ----------
    energy : Energy
        E at the level.
    temperature : float
        Temperature at which it is sampled.
    unit : float
        Unit of the step sizes, in squared units of x.
    """

    energy: Energy
    temperature: float
    unit: float


class _Descent(Warmup):
    """The steps of annealed Langevin down to its last level."""

    def __init__(self, sampler: AnnealedLangevin, n_steps: int) -> None:
        self._sampler = sampler
        self._n_steps = n_steps
        self._n_done = 0
        self._tuned = 0.1
        self._unit = 1.0

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one step at the level whose turn it is."""
        n_levels = self._sampler.n_levels
        turn = min(self._n_done * n_levels // max(1, self._n_steps), n_levels - 1)
        rung = self._sampler.rung(energy, turn / max(1, n_levels - 1))
        if not self._n_done:
            self._tuned *= rung.unit
        kernel = MALA(self._step_size(rung.unit), rung.temperature)
        start = kernel.init(rung.energy, state.x)
        state, info = kernel.step(rung.energy, start, generator=generator)
        # The levels are close, so the step size of one is a start for the next.
        self._tuned *= math.exp(float(info.acceptance.mean()) - MALA.target)
        self._unit = rung.unit
        self._n_done += 1
        if self._n_done == self._n_steps:
            state = self._sampler.init(energy, state.x)
        return state, info

    def finish(self) -> AnnealedLangevin:
        """Return the sampler, whose steps stay at the last level."""
        if self._sampler.step_size is not None or not self._n_done:
            return self._sampler
        return replace(self._sampler, step_size=self._tuned / self._unit)

    def _step_size(self, unit: float) -> float:
        """Return the step size in squared units of x."""
        given = self._sampler.step_size
        return self._tuned if given is None else given * unit
