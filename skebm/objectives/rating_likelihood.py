"""Each rating given the other ratings of its row: exact under an ordinal RBM."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from skebm.energies import Energy, RatedRows
from skebm.objectives.objective import Loss, Objective


@dataclass
class RatingLikelihood(Objective):
    """Ascent on sum_i log p(v_i | the row's other ratings), the pseudo-likelihood [1]_.

    What a rating predictor is asked for is what is trained: the conditionals are exact
    and there are no chains. Some of the other ratings are hidden at random, so that a
    row with few ratings is predicted well too.

    Parameters
    ----------
    dropout : float, default=0.3
        Share of the ratings, in [0, 1), that a prediction does not see.
    weight_decay : float, default=3.0
        Factor, >= 0, on |w|^2 in the loss summed over all ratings: normal weights of
        variance 1 / (2 weight_decay).

    References
    ----------
    .. [1] Besag (1975), Statistical analysis of non-lattice data, The Statistician
       24(3).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import OrdinalRBM, RatedRows, Ratings
    >>> from skebm.objectives import RatingLikelihood
    >>> ratings = Ratings(*torch.tensor([[0, 0, 1], [0, 2, 1], [4, 3, 0]]), 2)
    >>> rows, g = RatedRows(OrdinalRBM().build(3), ratings), torch.Generator()
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> loss = RatingLikelihood()(rows, x, torch.nn.Module(), generator=g)
    >>> round(loss.value.item(), 1)  # log 5
    1.6
    """

    dropout: float = 0.3
    weight_decay: float = 3.0

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the mean over the ratings of the rows at places ``batch`` (n, 1)."""
        if not isinstance(energy, RatedRows):
            raise TypeError(
                f"RatingLikelihood needs RatedRows, but got {type(energy).__name__}. "
                "Use ContrastiveDivergence for other energies."
            )
        machine, ratings = energy.machine, energy.at(batch)
        row, item, level, _ = ratings
        pushes = machine.pushes(item, level)
        if state.training and self.dropout:
            noise = torch.empty_like(pushes[:, :1]).uniform_(generator=generator)
            pushes = pushes * (noise >= self.dropout)
        fields = machine.hidden_fields(ratings, pushes)[row] - pushes
        nll = nn.functional.cross_entropy(machine.level_fields(fields, item), level)
        penalty = self.weight_decay * machine.weight.square().sum()
        return Loss(nll + penalty / len(energy.ratings.row), {"nll": nll.detach()})
