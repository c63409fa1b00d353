"""log p(y | x) of a chain of labels, exact."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from skebm._params import refuse
from skebm.energies import Chain, Energy
from skebm.objectives.objective import Loss, Objective

MOST_PRODUCTS = 6000
"""Products per step below which halving is faster than a step after another."""


@dataclass
class ChainLikelihood(Objective):
    """Ascent on log p(y | x) = -E(x, y) - log Z(x) of sequences with their labels [1]_.

    The cross-entropy of a conditional energy model: the energy of the true labels goes
    down, and that of all K^T labelings up by what each weighs, summed exactly. With
    linear energies it is convex.

    Parameters
    ----------
    weight_decay : float, default=0.0
        Factor, >= 0, on half the squares of all weights but the biases of the network,
        in the loss per sequence.

    References
    ----------
    .. [1] Lafferty, McCallum, Pereira (2001), Conditional random fields: probabilistic
       models for segmenting and labeling sequence data, ICML.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Chain
    >>> from skebm.objectives import ChainLikelihood
    >>> x, g = torch.zeros(1, 2, 3), torch.Generator()  # two rows with label 0
    >>> loss = ChainLikelihood()(Chain(3).build(3), x, torch.nn.Module(), generator=g)
    >>> round(loss.value.item(), 2)  # 2 log 3
    2.2
    """

    weight_decay: float = 0.0

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> nn.Module:
        """Return an empty module.

        Raises
        ------
        ValueError
            If ``weight_decay`` is below 0.
        """
        refuse(self, {"weight_decay": (self.weight_decay >= 0, "a number >= 0")})
        return nn.Module()

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the mean of -log p(y | x) over sequences, (n, T, d + 1)."""
        if not isinstance(energy, Chain):
            raise TypeError(
                f"ChainLikelihood needs a Chain, but got {type(energy).__name__}. Use "
                "ContrastiveDivergence for other energies."
            )
        u, y, length = energy.split(batch)
        in_halves = len(batch) * energy.n_labels**3 < MOST_PRODUCTS
        log_z = energy.log_normalizer_by_halves if in_halves else energy.log_normalizer
        nll = energy.joint(u, y, length) + log_z(u, length)
        metrics = {"nll_per_label": nll.detach().sum() / length.sum()}
        value = nll.mean()
        if self.weight_decay:
            value = value + self.weight_decay * half_squares(energy)
        return Loss(value, metrics)


def half_squares(chain: Chain) -> Tensor:
    """Return half the sum of squares of all weights but the biases of the network.

    Parameters
    ----------
    chain : Chain
        Built.

    Returns
    -------
    Tensor of shape ()
        Minus the logarithm of a standard normal prior, up to a constant.
    """
    layers = [layer for layer in chain.network if isinstance(layer, nn.Linear)]
    weights = [chain.transitions, chain.start, chain.end, *(w.weight for w in layers)]
    return 0.5 * torch.stack([w.square().sum() for w in weights]).sum()
