"""Metropolis kernels without gradients: a random walk, and independent proposals."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from skebm._torch import normal_like
from skebm.energies import Energy
from skebm.energies.tilted import SampledEnergy
from skebm.samplers.adaptation import Tunable
from skebm.samplers.metric import displaced
from skebm.samplers.sampler import (
    ChainState,
    Sampler,
    StepInfo,
    accept_or_stay,
    check_positive,
    state_like,
)


@dataclass(eq=False)
class RandomWalk(Tunable):
    """Random-walk Metropolis: x' = x + s L z, accepted with min(1, p(x') / p(x)).

    Needs no gradient: for energies that jump or are not differentiable.

    Parameters
    ----------
    step_size : float or None, default=None
        Scale s of the proposal in the units of the metric, > 0; about 2.4 / sqrt(d) is
        best. None is tuned in warm-up to a mean acceptance of .3.
    temperature : float, default=1.0
        T > 0.
    metric : Tensor of shape (d,) or (d, d), or None, default=None
        Factor L with L L' close to the covariance of x. None is estimated in warm-up
        where ``step_size`` is None, else the identity.

    Notes
    -----
    An independent draw takes O(d) steps; `HMC` takes O(d^(1/4)) gradients.

    References
    ----------
    .. [1] Gelman, Roberts, Gilks (1996), Efficient Metropolis jumping rules, Bayesian
       Statistics 5.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.samplers import RandomWalk, run_chains
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(64, 2, generator=generator)
    >>> energy = Quadratic().build(2)
    >>> chains = run_chains(RandomWalk(), energy, x, n_draws=100, generator=generator)
    >>> 0.2 < chains.acceptance < 0.5
    True
    """

    target: ClassVar[float] = 0.3

    @property
    def n_warmup(self) -> int:
        """Steps of a usual warm-up with 64 chains or more."""
        return 480

    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains that start at the rows x, shape (n, d)."""
        check_positive(self, temperature=self.temperature)
        return state_like(ChainState(x, x, None), energy, x)

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one step."""
        walk = normal_like(state.x, generator).mul_(self.known_step_size())
        proposal = state_like(state, energy, displaced(state.x, walk, self.metric))
        log_ratio = (state.e - proposal.e) / self.temperature
        return accept_or_stay(state, proposal, log_ratio, generator)


@dataclass(eq=False)
class Independence(Sampler):
    """Independent proposals x' ~ q, accepted with min(1, p(x') q(x) / (p(x) q(x'))).

    The proposal is a density close to p with heavier tails: the base of a `Tilted`
    energy, a mixture fitted to the rows. Every accepted step is a jump to anywhere, so
    in a `Cycle` with `HMC` it carries chains between modes.

    Parameters
    ----------
    proposal : Energy
        A built density q with ``sample``: `Gaussians` or `Quadratic`. ``clone`` keeps
        it whole.
    temperature : float, default=1.0
        T > 0 of p; q is taken as it is.

    References
    ----------
    .. [1] Tierney (1994), Markov chains for exploring posterior distributions, Annals
       of Statistics 22(4).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.samplers import Independence
    >>> energy = Quadratic().build(2)
    >>> kernel = Independence(energy)
    >>> state = kernel.init(energy, torch.zeros(3, 2))
    >>> generator = torch.Generator().manual_seed(0)
    >>> state, info = kernel.step(energy, state, generator=generator)
    >>> info.acceptance.tolist()
    [1.0, 1.0, 1.0]
    """

    proposal: Energy
    temperature: float = 1.0

    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains that start at the rows x, shape (n, d)."""
        check_positive(self, temperature=self.temperature)
        if not isinstance(self.proposal, SampledEnergy):
            raise TypeError(
                f"Independence needs a proposal with sample(); got {self.proposal!r}. "
                "Use Gaussians() or Quadratic(), matched to the rows."
            )
        return state_like(ChainState(x, x, None), energy, x)

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one step."""
        assert isinstance(self.proposal, SampledEnergy)
        with torch.no_grad():
            x = self.proposal.sample(len(state.x), generator=generator)
            surprise = self.proposal(x) - self.proposal(state.x.to(x))
        proposal = state_like(state, energy, x.to(state.x))
        log_ratio = (state.e - proposal.e) / self.temperature + surprise.to(state.e)
        return accept_or_stay(state, proposal, log_ratio, generator)

    def __sklearn_clone__(self) -> "Independence":
        """Copy whole, weights of the proposal included."""
        return copy.deepcopy(self)
