"""What a sampler is: a value with ``init`` and ``step``; randomness is an argument."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from skebm._params import Params
from skebm._torch import uniform_like
from skebm.energies import Energy


class ChainState(NamedTuple):
    """Where n chains are.

    Attributes
    ----------
    x : Tensor of shape (n, d)
        One row per chain.
    e : Tensor of shape (n,)
        E(x), at temperature 1.
    grad : Tensor of shape (n, d) or None
        dE/dx, for the kernels that use it.
    hotter : ChainState or None
        Replicas at higher temperatures, for the kernels that have them.
    """

    x: Tensor
    e: Tensor
    grad: Tensor | None
    hotter: "ChainState | None" = None


class StepInfo(NamedTuple):
    """What happened to n chains in one step.

    Attributes
    ----------
    acceptance : Tensor of shape (n,)
        Probability with which each chain's proposal is accepted, in [0, 1].
    accepted : Tensor of shape (n,)
        Whether it was, bool.
    """

    acceptance: Tensor
    accepted: Tensor


class Sampler(Params, ABC):
    """A Markov kernel that leaves p(x) = exp(-E(x) / T) / Z_T invariant.

    All chains move at once and each one accepts or rejects for itself.

    References
    ----------
    .. [1] Brooks, Gelman, Jones, Meng (2011), Handbook of Markov Chain Monte Carlo,
       Chapman and Hall.
    """

    @property
    @abstractmethod
    def temperature(self) -> float:
        """T > 0."""

    @property
    def n_warmup(self) -> int:
        """Steps of a usual warm-up with 64 chains or more."""
        return 120

    @abstractmethod
    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains that start at the rows x, shape (n, d)."""

    @abstractmethod
    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one step."""

    def warm_up(self, n_steps: int) -> "Warmup":
        """Return what moves the chains, and may learn, for the first steps.

        Parameters
        ----------
        n_steps : int
            Number of steps that are planned.

        Returns
        -------
        Warmup
            A kernel without tuning is its own warm-up.
        """
        return FixedWarmup(self)


class Warmup(ABC):
    """A sampler that learns while it moves."""

    @abstractmethod
    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one step and learn from it."""

    @abstractmethod
    def finish(self) -> Sampler:
        """Return the sampler with what was learnt as its parameters."""


class FixedWarmup(Warmup):
    """Steps of a sampler that has nothing to learn.

    Parameters
    ----------
    sampler : Sampler
        The kernel.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one step."""
        return self._sampler.step(energy, state, generator=generator)

    def finish(self) -> Sampler:
        """Return the kernel as it came."""
        return self._sampler


def check_positive(owner: Sampler, **values: float | None) -> None:
    """Raise unless every named number is None or positive and finite.

    Parameters
    ----------
    owner : Sampler
        Whose parameters they are.
    **values : float or None
        Parameters by name.

    Raises
    ------
    ValueError
        If one is not.
    """
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(
                f"{type(owner).__name__} needs {name} > 0 and finite; got {value!r}."
            )


def state_with_grad(energy: Energy, x: Tensor) -> ChainState:
    """Return the state at x with its gradient.

    Parameters
    ----------
    energy : Energy
        E.
    x : Tensor of shape (n, d)
        Rows.

    Returns
    -------
    ChainState
        Detached x, E(x) and dE/dx.
    """
    x = x.detach()
    e, grad = energy.value_and_grad(x)
    return ChainState(x, e, grad)


def with_grad(energy: Energy, state: ChainState) -> ChainState:
    """Return the state with its gradient, computed where it has none.

    Parameters
    ----------
    energy : Energy
        E.
    state : ChainState
        Where the chains are.

    Returns
    -------
    ChainState
        The same place.
    """
    return state if state.grad is not None else state_with_grad(energy, state.x)


def state_like(state: ChainState, energy: Energy, x: Tensor) -> ChainState:
    """Return the state at x, with a gradient if ``state`` has one.

    Parameters
    ----------
    state : ChainState
        The pattern.
    energy : Energy
        E.
    x : Tensor of shape (n, d)
        Rows.

    Returns
    -------
    ChainState
        Detached x and E(x), and dE/dx or None.
    """
    if state.grad is not None:
        return state_with_grad(energy, x)
    with torch.no_grad():
        return ChainState(x.detach(), energy(x), None)


def accept_or_stay(
    state: ChainState, proposal: ChainState, log_ratio: Tensor, generator: Generator
) -> tuple[ChainState, StepInfo]:
    """Take each row's proposal with probability min(1, exp(log_ratio)).

    A proposal whose energy or ratio is not finite is rejected: +inf is how a hard
    constraint says no.

    Parameters
    ----------
    state, proposal : ChainState
        Where the chains are and where they may go.
    log_ratio : Tensor of shape (n,)
        log of the Metropolis-Hastings ratio, row by row.
    generator : Generator
        Source of randomness, on the device of the chains.

    Returns
    -------
    state : ChainState
        The proposal's rows where accepted, else the old ones.
    info : StepInfo
        Probability and outcome.
    """
    log_ratio = torch.where(proposal.e.isfinite(), log_ratio, -torch.inf)
    acceptance = log_ratio.clamp_(max=0.0).exp_().nan_to_num_(nan=0.0)
    accepted = uniform_like(acceptance, generator) < acceptance
    rows = accepted[:, None]
    grad = None
    if state.grad is not None and proposal.grad is not None:
        grad = torch.where(rows, proposal.grad, state.grad)
    chosen = ChainState(
        torch.where(rows, proposal.x, state.x),
        torch.where(accepted, proposal.e, state.e),
        grad,
    )
    return chosen, StepInfo(acceptance, accepted)
