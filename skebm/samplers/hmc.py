"""Hamiltonian Monte Carlo: H(x, v) = E(x) / T + |v|^2 / 2 by leapfrog steps."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from skebm._torch import uniform_like
from skebm.energies import Energy
from skebm.samplers.adaptation import Tunable
from skebm.samplers.leapfrog import Dynamics
from skebm.samplers.sampler import (
    ChainState,
    StepInfo,
    check_positive,
    state_with_grad,
    with_grad,
)


@dataclass(eq=False)
class HMC(Tunable):
    """Hamiltonian Monte Carlo with a tuned step size, metric and length.

    With x = L u and v ~ N(0, I), n leapfrog steps of H(u, v) = E(L u) / T + |v|^2 / 2
    propose a place, accepted with probability min(1, exp(H - H')) row by row. The step
    size of every chain is multiplied by a number uniform in 1 +- ``jitter``, so that no
    chain falls in step with an oscillation of the energy.

    Parameters
    ----------
    step_size : float or None, default=None
        Leapfrog step in the units of the metric, > 0; typical .1 to 1.5. None is tuned
        in warm-up to a mean acceptance of .8.
    temperature : float, default=1.0
        T > 0.
    metric : Tensor of shape (d,) or (d, d), or None, default=None
        Factor L with L L' close to the covariance of x. None is estimated in warm-up
        where ``step_size`` is None, else the identity.
    n_steps : int or None, default=None
        Leapfrog steps, >= 1. None takes as many as come closest to a length of
        pi / 2, a quarter of the period of the widest direction, at most 64.
    jitter : float, default=0.3
        Relative half-width of the random step sizes, in [0, 1).

    Notes
    -----
    A step costs ``n_steps`` gradients. HMC does not jump between modes that are far
    apart: see `Independence` and `ParallelTempering`.

    References
    ----------
    .. [1] Neal (2011), MCMC using Hamiltonian dynamics, Handbook of Markov Chain Monte
       Carlo, Chapman and Hall.
    .. [2] Hoffman, Gelman (2014), The No-U-Turn sampler, JMLR 15.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.samplers import HMC, run_chains
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(64, 2, generator=generator)
    >>> energy = Quadratic().build(2)
    >>> chains = run_chains(HMC(), energy, x, n_draws=500, generator=generator)
    >>> bool((chains.rhat() < 1.01).all())
    True
    """

    target: ClassVar[float] = 0.8

    n_steps: int | None = None
    jitter: float = 0.3

    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains that start at the rows x, shape (n, d)."""
        check_positive(self, temperature=self.temperature, n_steps=self.n_steps)
        if not 0 <= self.jitter < 1:
            raise ValueError(f"HMC needs jitter in [0, 1); got {self.jitter!r}.")
        return state_with_grad(energy, x)

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one trajectory."""
        step_size = self.known_step_size()
        n_steps = self.n_steps or _usual_length(step_size)
        spread = uniform_like(state.e[:, None], generator).mul_(2).sub_(1)
        steps = spread.mul_(self.jitter * step_size).add_(step_size)
        dynamics = Dynamics(energy, steps, n_steps, self.metric, self.temperature)
        return dynamics.step(with_grad(energy, state), generator=generator)


def _usual_length(step_size: float) -> int:
    """Return the number of steps of a quarter of a period, 1 to 64."""
    return min(64, max(1, round(math.pi / 2 / step_size)))
