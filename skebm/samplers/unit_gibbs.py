"""Gibbs steps of one unit at a time, or of units that do not couple, of all chains."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from skebm._torch import uniform_like
from skebm.energies import Boltzmann, Energy
from skebm.samplers.sampler import ChainState, Sampler, StepInfo, check_positive

ORDERS = "random", "blocks"


class AnnealedUnits:
    """The units of a Boltzmann machine on the path from independent bits.

    E_t(s) = -((1 - t) a_0 + t a)'s - t s'Ls/2: at t = 0 the bits are independent with
    biases a_0, at t = 1 it is the machine. Weights are read once: make a new one after
    a change.

    Parameters
    ----------
    machine : Boltzmann
        Built.
    start : Tensor of shape (n_units,) or None, default=None
        a_0; None means a.
    order : {"random", "blocks"}, default="random"
        Units one by one in a new random order every sweep, or block by block: the
        units of a block do not couple, and a greedy colouring finds the blocks. Of use
        where most couplings are zero.

    References
    ----------
    .. [1] Geman, Geman (1984), Stochastic relaxation, Gibbs distributions, and the
       Bayesian restoration of images, IEEE PAMI 6(6).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Boltzmann
    >>> from skebm.samplers import AnnealedUnits
    >>> units, g = AnnealedUnits(Boltzmann().build(3)), torch.Generator().manual_seed(0)
    >>> units.move(torch.zeros(5, 3), generator=g).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, machine: Boltzmann, start: Tensor | None = None, order: str = "random"
    ) -> None:
        with torch.no_grad():
            self.couplings = machine.matrix()
        self.bias = machine.bias.detach()
        self.start = self.bias if start is None else start
        self._blocks = None if order == "random" else colored(self.couplings)

    def move(
        self,
        s: Tensor,
        t: float = 1.0,
        *,
        generator: Generator,
        free: Tensor | None = None,
    ) -> Tensor:
        """Return states after drawing every unit once, given the others, under E_t.

        Parameters
        ----------
        s : Tensor of shape (n, n_units)
            States, one chain per row.
        t : float, default=1.0
            Place on the path, >= 0; beyond 1 it is colder than the machine.
        generator : Generator
            Source of randomness, on the device of s.
        free : Tensor of shape (n, n_units) or None, default=None
            Which entries move, bool; None moves all.

        Returns
        -------
        Tensor of shape (n, n_units)
            New states.
        """
        order, sizes = self._sweep(generator)
        couplings = t * self.couplings[order][:, order]
        bias = torch.lerp(self.start, self.bias, t)[order, None]
        # Units in rows: a block is then a slice, and what is written is contiguous.
        state = s.T[order].contiguous()
        kept = None if free is None else ~free.T[order]
        noise = uniform_like(state, generator).logit_()
        low = 0
        for size in sizes:
            block = slice(low, low + size)
            drawn = torch.addmm(bias[block], couplings[block], state) > noise[block]
            if kept is not None:
                drawn = torch.where(kept[block], state[block], drawn)
            state[block] = drawn
            low += size
        moved = torch.empty_like(state)
        moved[order] = state
        return moved.T.contiguous()

    def slope(self, s: Tensor) -> Tensor:
        """Return -dE_t/dt = s'Ls/2 + (a - a_0)'s, shape (n,).

        Parameters
        ----------
        s : Tensor
            States of the units.

        Returns
        -------
        Tensor
            -dE_t/dt = s'Ls/2 + (a - a_0)'s, shape (n,).
        """
        return 0.5 * ((s @ self.couplings) * s).sum(1) + s @ (self.bias - self.start)

    def _sweep(self, generator: Generator) -> tuple[Tensor, list[int]]:
        """Return the units in the order of a sweep, and the sizes of its blocks."""
        if self._blocks is not None:
            return torch.cat(self._blocks), [len(block) for block in self._blocks]
        n, device = len(self.bias), self.bias.device
        return torch.randperm(n, generator=generator, device=device), [1] * n


def colored(couplings: Tensor) -> list[Tensor]:
    """Return blocks of units that do not couple within a block.

    Parameters
    ----------
    couplings : Tensor of shape (d, d)
        L; zero means no coupling.

    Returns
    -------
    list of Tensor
        Indices: every unit goes to the first block without a unit that it couples to.
    """
    coupled = (couplings != 0).tolist()
    blocks: list[list[int]] = []
    for i, row in enumerate(coupled):
        home = next((b for b in blocks if not any(row[j] for j in b)), None)
        if home is None:
            blocks.append([i])
        else:
            home.append(i)
    return [torch.tensor(block, device=couplings.device) for block in blocks]


@dataclass(eq=False)
class UnitGibbs(Sampler):
    """One unit of a Boltzmann machine after the other, each from its conditional.

    p(s_i = 1 | others) = 1 / (1 + exp(-(a_i + L_i s) / T)). Hidden bits are drawn given
    the row before every sweep, so the rows are the whole state of a chain, and
    exp(-E / T) of visible and hidden bits stays invariant.

    Parameters
    ----------
    temperature : float, default=1.0
        T > 0, of the joint energy.
    order : {"random", "blocks"}, default="random"
        See `AnnealedUnits`.

    References
    ----------
    .. [1] Geman, Geman (1984), Stochastic relaxation, Gibbs distributions, and the
       Bayesian restoration of images, IEEE PAMI 6(6).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Boltzmann
    >>> from skebm.samplers import UnitGibbs, run_chains
    >>> machine, g = Boltzmann().build(3), torch.Generator().manual_seed(0)
    >>> run_chains(
    ...     UnitGibbs(), machine, torch.zeros(64, 3), n_draws=5, generator=g
    ... ).draws.shape
    torch.Size([5, 64, 3])
    """

    temperature: float = 1.0
    order: str = "random"

    def __post_init__(self) -> None:
        """Refuse a temperature that is not positive, and an unknown order."""
        check_positive(self, temperature=self.temperature)
        if self.order not in ORDERS:
            raise ValueError(f"Got order={self.order!r}, but expected one of {ORDERS}.")

    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains at the rows x."""
        return ChainState(x, energy(x), None)

    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain by one sweep; every move is accepted."""
        if not isinstance(energy, Boltzmann):
            raise TypeError(
                f"UnitGibbs needs a Boltzmann, but got {type(energy).__name__}. Use "
                "BlockGibbs() for an RBM, HMC() for energies of real numbers."
            )
        cold = 1 / self.temperature
        with torch.no_grad():
            s = with_hidden(energy, state.x, cold, generator=generator)
            units = AnnealedUnits(energy, torch.zeros_like(energy.bias), self.order)
            x = units.move(s, cold, generator=generator)[:, : energy.n_features]
        ones = torch.ones_like(state.e)
        return self.init(energy, x), StepInfo(ones, ones.bool())


def with_hidden(
    machine: Boltzmann, v: Tensor, t: float = 1.0, *, generator: Generator
) -> Tensor:
    """Return rows with hidden bits drawn from p_t(h | v), exactly.

    Parameters
    ----------
    machine : Boltzmann
        Built.
    v : Tensor of shape (n, n_features)
        Rows.
    t : float, default=1.0
        Inverse temperature of the joint energy.
    generator : Generator
        Source of randomness, on the device of v.

    Returns
    -------
    Tensor of shape (n, n_units)
        Visible bits, then hidden ones.
    """
    if not machine.n_hidden:
        return v
    p = (t * machine.hidden_log_weights(v)).softmax(1)
    which = torch.multinomial(p, 1, generator=generator)[:, 0]
    return torch.cat([v, machine.hidden_states()[which]], 1)
