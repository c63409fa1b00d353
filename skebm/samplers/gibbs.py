"""Block Gibbs: all hidden bits given the visible row, then the row given the bits."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from skebm.energies import RBM, Energy
from skebm.samplers.sampler import ChainState, Sampler, StepInfo, check_positive


@dataclass(eq=False)
class BlockGibbs(Sampler):
    """Both layers of an RBM in turn, each exactly from its conditional.

    h ~ exp(-E(v, h) / T), then v ~ exp(-E(v, h) / T). Leaves exp(-E(v, h) / T)
    invariant; at T = 1 the rows follow exp(-E(v)).

    Parameters
    ----------
    temperature : float, default=1.0
        T > 0, of the joint energy.

    References
    ----------
    .. [1] Geman, Geman (1984), Stochastic relaxation, Gibbs distributions, and the
       Bayesian restoration of images, IEEE PAMI 6(6).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import RBM
    >>> from skebm.samplers import BlockGibbs, run_chains
    >>> rbm, g = RBM(4).build(3), torch.Generator().manual_seed(0)
    >>> run_chains(
    ...     BlockGibbs(), rbm, torch.zeros(64, 3), n_draws=5, generator=g
    ... ).draws.shape
    torch.Size([5, 64, 3])
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a temperature that is not positive."""
        check_positive(self, temperature=self.temperature)

    @torch.no_grad()
    def init(self, energy: Energy, x: Tensor) -> ChainState:
        """Return the state of chains at the rows x."""
        return ChainState(x, energy(x), None)

    @torch.no_grad()
    def step(
        self, energy: Energy, state: ChainState, *, generator: Generator
    ) -> tuple[ChainState, StepInfo]:
        """Move every chain; every move is accepted."""
        if not isinstance(energy, RBM):
            raise TypeError(
                f"BlockGibbs needs an RBM, but got {type(energy).__name__}. Use HMC() "
                "or MALA() for energies of real numbers."
            )
        x = energy.gibbs(state.x, temperature=self.temperature, generator=generator)
        ones = torch.ones_like(state.e)
        return self.init(energy, x), StepInfo(ones, ones.bool())
