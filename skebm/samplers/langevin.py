"""Langevin kernels: x' = x - eps dE/dx + sqrt(2 eps T) z, with or without rejection."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Generator, Tensor

from skebm._torch import normal_like
from skebm.energies import Constrained, Energy
from skebm.samplers.adaptation import Tunable
from skebm.samplers.leapfrog import Dynamics
from skebm.samplers.sampler import (
    ChainState,
    Sampler,
    StepInfo,
    check_positive,
    state_with_grad,
    with_grad,
)


@dataclass(eq=False)
class ULA(Sampler):
    """Unadjusted Langevin: x' = x - eps dE/dx + sqrt(2 eps T) z, z ~ N(0, I).

    One temperature ties drift and noise. The form x - (eta / 2) dE/dx + sqrt(eta) z is
    the same kernel with eta = 2 eps at T = 1. A drift eps with noise of any other
    standard deviation s samples the temperature s^2 / (2 eps) instead.

    Parameters
    ----------
    step_size : float, default=0.01
        eps > 0, in squared units of x; stable below twice the smallest variance.
    temperature : float, default=1.0
        T > 0.

    Notes
    -----
    Without rejection the law is biased: on N(0, 1) the variance is 1 / (1 - eps / 2).
    `MALA` removes the bias. A `Constrained` energy has its chains projected on the
    region after every step.

    References
    ----------
    .. [1] Roberts, Tweedie (1996), Exponential convergence of Langevin distributions
       and their discrete approximations, Bernoulli 2(4).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.samplers import ULA
    >>> energy, kernel = Quadratic().build(2), ULA(step_size=0.1)
    >>> generator = torch.Generator().manual_seed(0)
    >>> state = kernel.init(energy, torch.full((3, 2), 9.0))
    >>> for _ in range(100):
    ...     state, info = kernel.step(energy, state, generator=generator)
    >>> bool(state.x.abs().max() < 4)
    True
    """

    step_size: float = 0.01
    temperature: float = 1.0

    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains that start at the rows x, shape (n, d)."""
        check_positive(self, step_size=self.step_size, temperature=self.temperature)
        return state_with_grad(energy, x)

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one step; nothing is rejected."""
        state = with_grad(energy, state)
        assert state.grad is not None
        noise = normal_like(state.x, generator)
        x = torch.add(state.x, state.grad, alpha=-self.step_size)
        x.add_(noise, alpha=(2 * self.step_size * self.temperature) ** 0.5)
        if isinstance(energy, Constrained):
            x = energy.project(x)
        e, grad = energy.value_and_grad(x)
        return ChainState(x, e, grad), _sure(len(e), e.dtype, e.device)


@lru_cache(maxsize=8)
def _sure(n: int, dtype: torch.dtype, device: torch.device) -> StepInfo:
    """Return the outcome of n steps that nothing can reject; do not write to it."""
    acceptance = torch.ones(n, dtype=dtype, device=device)
    return StepInfo(acceptance, acceptance.bool())


@dataclass(eq=False)
class MALA(Tunable):
    """Metropolis-adjusted Langevin: the step of `ULA`, accepted or rejected.

    x' = x - eps C dE/dx + sqrt(2 eps T) L z with C = L L', accepted with probability
    min(1, p(x') q(x | x') / (p(x) q(x' | x))) row by row, so that p is exact.

    Parameters
    ----------
    step_size : float or None, default=None
        eps > 0, in squared units of the metric. None is tuned in warm-up to a mean
        acceptance of .574, the optimum in high dimension [1]_.
    temperature : float, default=1.0
        T > 0.
    metric : Tensor of shape (d,) or (d, d), or None, default=None
        Factor L with L L' close to the covariance of x. None is estimated in warm-up
        where ``step_size`` is None, else the identity.

    Notes
    -----
    It is one leapfrog step of length sqrt(2 eps T) of `HMC`.

    References
    ----------
    .. [1] Roberts, Rosenthal (1998), Optimal scaling of discrete approximations to
       Langevin diffusions, JRSS B 60(1).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.samplers import MALA, run_chains
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(64, 2, generator=generator)
    >>> energy = Quadratic().build(2)
    >>> chains = run_chains(MALA(), energy, x, n_draws=100, generator=generator)
    >>> 0.5 < chains.acceptance < 0.65
    True
    """

    target: ClassVar[float] = 0.574

    @property
    def n_warmup(self) -> int:
        """Steps of a usual warm-up with 64 chains or more."""
        return 240

    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains that start at the rows x, shape (n, d)."""
        check_positive(self, temperature=self.temperature)
        return state_with_grad(energy, x)

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one step."""
        length = (2 * self.known_step_size() * self.temperature) ** 0.5
        steps = state.e.new_full((1, 1), length)
        dynamics = Dynamics(energy, steps, 1, self.metric, self.temperature)
        return dynamics.step(with_grad(energy, state), generator=generator)
