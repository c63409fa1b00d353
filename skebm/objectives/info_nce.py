"""InfoNCE: pick the row that goes with a row out of the rows of a batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Generator, Tensor, nn

from skebm.energies import Energy, PairEnergy
from skebm.objectives.objective import Loss, Objective

View = Callable[[Tensor, Generator], Tensor]


@dataclass
class InfoNCE(Objective):
    """The cross-entropy of picking each row's partner among those of a batch [1]_.

    A batch holds n pairs (x_i, x'_i), side by side. Given x_i, the conditional energy
    model over the n candidates is p(j | x_i) = softmax_j(-E(x_i, x'_j)), and

    L = -1/n sum_i log p(i | x_i).

    log n - L is a lower bound on the mutual information of x and x', and itself at most
    log n [2]_. Terms of E that depend on x alone cancel.

    Parameters
    ----------
    augmentation : callable or None, default=None
        ``augmentation(x', generator)`` is a random view that takes the place of x'.
        None: x' is what was given.
    symmetric : bool, default=True
        The mean of L and the same with x and x' exchanged.

    Notes
    -----
    n^2 energies for 2 n embedded rows. Limits: mutual information beyond log n cannot
    be seen; two equal rows in a batch are told apart in vain.

    References
    ----------
    .. [1] van den Oord, Li, Vinyals (2018), Representation learning with contrastive
       predictive coding, arXiv:1807.03748.
    .. [2] Poole, Ozair, van den Oord, Alemi, Tucker (2019), On variational bounds of
       mutual information, ICML.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Similarity
    >>> from skebm.objectives import FeatureCorruption, InfoNCE
    >>> g = torch.Generator().manual_seed(0)
    >>> x, energy = torch.randn(100, 3, generator=g), Similarity().build(6)
    >>> pairs, objective = torch.cat([x, x], 1), InfoNCE(FeatureCorruption())
    >>> objective(energy, pairs, torch.nn.Module(), generator=g).value.backward()
    """

    augmentation: View | None = None
    symmetric: bool = True

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the cross-entropy of pairs, shape (n, 2 d), each among the others."""
        if not isinstance(energy, PairEnergy):
            raise TypeError(
                f"InfoNCE needs a PairEnergy, but got {type(energy).__name__}. Use "
                "RankingNoiseContrastive for energies of single rows."
            )
        left, right = batch.chunk(2, 1)
        if self.augmentation is not None:
            right = _view(self.augmentation, right, generator)
        s = -energy.table(left, right)
        own = s.diagonal()
        total = s.logsumexp(1)
        if self.symmetric:
            total = 0.5 * (total + s.logsumexp(0))
        return picking_loss(own, total, len(s))


def _view(augmentation: View, x: Tensor, generator: Generator) -> Tensor:
    """Return a view of rows; raise if it has another shape."""
    view = augmentation(x, generator)
    if view.shape != x.shape:
        raise ValueError(
            f"Got views of shape {tuple(view.shape)} for rows of shape "
            f"{tuple(x.shape)}. Return a view of every row, with the same columns."
        )
    return view


def picking_loss(own: Tensor, total: Tensor, n_candidates: int) -> Loss:
    """Return the cross-entropy of picking the right one of some candidates.

    Parameters
    ----------
    own : Tensor of shape (n,)
        The logit s of the right candidate.
    total : Tensor of shape (n,)
        Log sum exp s over all candidates.
    n_candidates : int
        How many these are.

    Returns
    -------
    Loss
        Its metric "bound" is log n_candidates less the loss: nats of information.
    """
    value = (total - own).mean()
    return Loss(value, {"bound": math.log(n_candidates) - value.detach()})
