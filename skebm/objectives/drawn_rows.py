"""The likelihood of an RBM whose rows are given as probabilities of bits."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from skebm._torch import bernoulli
from skebm.energies import Energy
from skebm.objectives.objective import Loss
from skebm.objectives.rbm import RBMLikelihood, checked
from skebm.objectives.rbm_phases import GibbsState
from skebm.samplers import AnnealedLayers

N_SETTLE = 20
"""Gibbs steps between the rows and the first negative phase."""


@dataclass
class DrawnRowsLikelihood(RBMLikelihood):
    """Ascent on the likelihood of bits that are drawn anew whenever a row is seen.

    E_v~p log p(v) for rows of probabilities p: what an upper layer of a deep belief
    network ascends, whose data are draws of the layer below [1]_. The parameters are
    those of `RBMLikelihood`.

    References
    ----------
    .. [1] Hinton, Osindero, Teh (2006), A fast learning algorithm for deep belief nets,
       Neural Computation 18(7).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import RBM
    >>> from skebm.objectives import DrawnRowsLikelihood
    >>> x, g = torch.full((20, 3), 0.5), torch.Generator().manual_seed(0)
    >>> rbm, objective = RBM(2).build(3), DrawnRowsLikelihood()
    >>> state = objective.init(rbm, x, generator=g)
    >>> loss = objective(rbm, x, state, generator=g)
    >>> rbm.weight.grad.shape
    torch.Size([2, 3])
    """

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> GibbsState:
        """Return chains that settled from draws of the rows, and means of all units.

        An upper layer starts as a good machine: chains from elsewhere would spoil it
        before they get to its draws.
        """
        state, rbm = super().init(energy, x, generator=generator), checked(energy)
        n, layers = self.n_chains, AnnealedLayers(rbm)
        with torch.no_grad():
            which = torch.randint(len(x), (n,), generator=generator, device=x.device)
            v = bernoulli(x[which], generator)
            for _ in range(N_SETTLE):
                v = layers.move(v, generator=generator)
            state.chains[:n] = v
            state.bits.copy_(bernoulli(rbm.hidden_mean(v), generator))
            state.hidden_offset.copy_(rbm.hidden_mean(x).mean(0))
        return state

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Set the gradients for a draw of the rows; move the chains in train mode."""
        drawn = bernoulli(batch.clone(), generator)
        return super().__call__(energy, drawn, state, generator=generator)

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return the mean negative log-likelihood of a draw of held-out rows."""
        drawn = bernoulli(rows.clone(), generator)
        return super().criterion(energy, drawn, state, generator=generator)
