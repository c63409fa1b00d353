"""Parallel tempering: hot replicas cross barriers and hand their places down."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Generator, Tensor

from skebm._torch import uniform_like
from skebm.energies import Energy
from skebm.samplers.hmc import HMC
from skebm.samplers.sampler import (
    ChainState,
    Sampler,
    StepInfo,
    Warmup,
    state_with_grad,
    with_grad,
)

_Move = Callable[[Energy, ChainState], tuple[ChainState, StepInfo]]


@dataclass(eq=False)
class ParallelTempering(Sampler):
    """Replicas at temperatures T = T_1 < ... < T_K that exchange their places.

    Every chain has a replica at each temperature of a geometric ladder. After a step of
    the kernel, neighbours swap with probability
    min(1, exp((1 / T_i - 1 / T_j) (E_i - E_j))). All replicas move in one batch: the
    kernel sees u = x / sqrt(T_i / T), in which a Gaussian looks alike at every
    temperature, so that one step size and one metric serve all.

    Parameters
    ----------
    kernel : Sampler, default=HMC()
        What moves the replicas; its temperature is T.
    hottest : float, default=16.0
        T_K / T > 1. At the hottest temperature the modes should run into each other.
    n_levels : int, default=6
        Number of temperatures K, >= 2.

    Notes
    -----
    A step costs K times that of the kernel. Swaps are rare if T_i+1 / T_i exceeds about
    1 + 2 / sqrt(d): use more levels in high dimension.

    References
    ----------
    .. [1] Geyer (1991), Markov chain Monte Carlo maximum likelihood, Computing Science
       and Statistics 23.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Gaussians
    >>> from skebm.samplers import ParallelTempering, run_chains
    >>> means = torch.tensor([[-5.0], [5.0]])
    >>> energy = Gaussians().match(torch.tensor([0.5, 0.5]), means, torch.ones(2, 1, 1))
    >>> generator = torch.Generator().manual_seed(0)
    >>> chains = run_chains(
    ...     ParallelTempering(),
    ...     energy,
    ...     torch.full((64, 1), 5.0),
    ...     n_draws=100,
    ...     generator=generator,
    ... )
    >>> 0.3 < (chains.draws > 0).float().mean().item() < 0.7
    True
    """

    kernel: Sampler = field(default_factory=HMC)
    hottest: float = 16.0
    n_levels: int = 6

    @property
    def temperature(self) -> float:
        """The temperature of the coldest replicas, which are the draws."""
        return self.kernel.temperature

    @property
    def n_warmup(self) -> int:
        """Steps of a usual warm-up with 64 chains or more."""
        return 2 * self.kernel.n_warmup

    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains that start at the rows x, shape (n, d)."""
        if self.hottest <= 1 or self.n_levels < 2:
            raise ValueError(
                "ParallelTempering needs hottest > 1 and n_levels >= 2; got "
                f"hottest={self.hottest} and n_levels={self.n_levels}."
            )
        self.kernel.init(energy, x[:1])
        cold = state_with_grad(energy, x)
        widths = self._widths(x)[1:].repeat_interleave(len(x), 0)
        places = cold.x.repeat(self.n_levels - 1, 1) / widths
        return cold._replace(hotter=state_with_grad(_Heated(energy, widths), places))

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move all replicas, then swap neighbours."""
        move = partial(self.kernel.step, generator=generator)
        return self.exchange(energy, state, move, generator=generator)

    def exchange(
        self, energy: Energy, state: ChainState, move: _Move, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move all replicas by ``move``, then swap neighbours.

        Parameters
        ----------
        energy : Energy
            E.
        state : ChainState
            The coldest replicas, and the others in ``hotter``.
        move : callable
            Maps an energy and the state of all replicas to their next state.
        generator : Generator
            Source of randomness, on the device of the chains.

        Returns
        -------
        state : ChainState
            Where the chains are next.
        info : StepInfo
            Of the coldest replicas.
        """
        n = len(state.x)
        widths = self._widths(state.x)
        heated = _Heated(energy, widths.repeat_interleave(n, 0))
        moved, info = move(heated, _stacked(energy, state))
        swapped = self._swapped(with_grad(heated, moved), widths, generator)
        parts = [(rows[:n], rows[n:]) for rows in swapped]
        cold, hot = (ChainState(*rows) for rows in zip(*parts, strict=True))
        info = StepInfo(info.acceptance[:n], info.accepted[:n])
        return cold._replace(hotter=hot), info

    def warm_up(self, n_steps: int) -> Warmup:
        """Return the warm-up of the kernel on all replicas.

        Parameters
        ----------
        n_steps : int
            Number of steps that are planned.

        Returns
        -------
        Warmup
            The tuning of the kernel, with swaps.
        """
        return _TemperedWarmup(self, self.kernel.warm_up(n_steps))

    def _widths(self, x: Tensor) -> Tensor:
        """Return sqrt(T_k / T), shape (K, 1)."""
        steps = torch.linspace(0, 0.5, self.n_levels, dtype=x.dtype, device=x.device)
        widths: Tensor = self.hottest**steps
        return widths[:, None]

    def _swapped(
        self, state: ChainState, widths: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return u, e and grad of all replicas after swaps of even and odd pairs."""
        k, d = self.n_levels, state.x.shape[1]
        assert state.grad is not None
        heat = widths.square()
        x = state.x.view(k, -1, d) * widths[:, None]
        e = state.e.view(k, -1) * heat
        grad = state.grad.view(k, -1, d) * widths[:, None]
        for first in (0, 1):
            low, high = slice(first, k - 1, 2), slice(first + 1, k, 2)
            colder = (1 / heat[low] - 1 / heat[high]) / self.temperature
            ratio = colder * (e[low] - e[high])
            swap = uniform_like(ratio, generator).log_() < ratio
            x, e, grad = (_exchanged(t, low, high, swap) for t in (x, e, grad))
        u, grad = x / widths[:, None], grad / widths[:, None]
        return u.view(-1, d), (e / heat).view(-1), grad.view(-1, d)


class _Heated(Energy):
    """E(u w) / w^2 with one width w per row."""

    def __init__(self, part: Energy, widths: Tensor) -> None:
        super().__init__()
        self.part = part
        self.widths = widths

    def forward(self, x: Tensor) -> Tensor:
        """Return the heated energy, shape (n,)."""
        e: Tensor = self.part(x * self.widths)
        return e / self.widths[:, 0].square()

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the heated energy and its gradient."""
        e, grad = self.part.value_and_grad(x * self.widths)
        return e / self.widths[:, 0].square(), grad / self.widths


class _TemperedWarmup(Warmup):
    """The warm-up of the kernel, with swaps after every step."""

    def __init__(self, sampler: ParallelTempering, kernel: Warmup) -> None:
        self._sampler = sampler
        self._kernel = kernel

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move all replicas by one step of the kernel's warm-up, then swap."""
        move = partial(self._kernel.step, generator=generator)
        return self._sampler.exchange(energy, state, move, generator=generator)

    def finish(self) -> ParallelTempering:
        """Return the sampler with the tuned kernel."""
        sampler = self._sampler
        return ParallelTempering(
            self._kernel.finish(), sampler.hottest, sampler.n_levels
        )


def _stacked(energy: Energy, state: ChainState) -> ChainState:
    """Return all replicas as one state, the coldest first."""
    cold, hot = with_grad(energy, state), state.hotter
    if hot is None or hot.grad is None or cold.grad is None:
        raise ValueError(
            "ParallelTempering.step needs a state with replicas; start from init()."
        )
    return ChainState(
        torch.cat([cold.x, hot.x]),
        torch.cat([cold.e, hot.e]),
        torch.cat([cold.grad, hot.grad]),
    )


def _exchanged(rows: Tensor, low: slice, high: slice, swap: Tensor) -> Tensor:
    """Return ``rows`` (K, n, ...) with the pairs (low, high) swapped where told."""
    mask = swap if rows.ndim == 2 else swap[..., None]
    result = rows.clone()
    result[low] = torch.where(mask, rows[high], rows[low])
    result[high] = torch.where(mask, rows[low], rows[high])
    return result
