"""Ranking noise-contrastive estimation: pick the data row out of noise rows."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor, nn

from skebm.energies import Energy
from skebm.objectives.info_nce import picking_loss
from skebm.objectives.noise_rows import NoiseRows, noise_rows
from skebm.objectives.objective import Loss, Objective


@dataclass
class RankingNoiseContrastive(Objective):
    """The cross-entropy of picking one data row among M noise rows (InfoNCE).

    With q the density of the noise and s(x) = -E(x) - log q(x),

    L = -mean log [exp s(x) / (exp s(x) + sum_j exp s(x_j))],  x_1 ... x_M ~ q.

    It is the cross-entropy of a conditional energy model over 1 + M candidates. Any
    constant of E cancels, so there is no log Z to learn. log(M + 1) - L is a lower
    bound on KL(data | q), and itself at most log(M + 1); with joint data and the
    product of their marginals as q it bounds the mutual information.

    Parameters
    ----------
    n_noise : int, default=255
        M, >= 1; the rows of a batch share the draws.
    noise : Energy or None, default=None
        Normalised density with ``sample``, in `Frozen` so that clone keeps its weights.
        None is the base of a `Tilted` energy, for others the Gaussian with the moments
        of the training rows.

    Notes
    -----
    One evaluation of E on n + M rows. Limits: a KL(data | q) beyond log(M + 1) cannot
    be seen.

    References
    ----------
    .. [1] Ma, Collins (2018), Noise contrastive estimation and negative sampling for
       conditional models: consistency and statistical efficiency, EMNLP.
    .. [2] van den Oord, Li, Vinyals (2018), Representation learning with contrastive
       predictive coding, arXiv:1807.03748.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.objectives import RankingNoiseContrastive
    >>> x, g = torch.randn(100, 2), torch.Generator().manual_seed(0)
    >>> energy, objective = Quadratic().build(2), RankingNoiseContrastive(n_noise=50)
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.backward()
    """

    n_noise: int = 255
    noise: Energy | None = None

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> NoiseRows:
        """Return the density of the noise.

        Raises
        ------
        ValueError
            If ``n_noise`` is below 1 or the noise is no normalised density.
        """
        if self.n_noise < 1 or self.n_noise != int(self.n_noise):
            raise ValueError(
                f"Got n_noise={self.n_noise!r}, but expected an integer >= 1."
            )
        return noise_rows(self.noise, energy, x)

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the cross-entropy of ``batch`` against fresh noise rows."""
        law = cast(NoiseRows, state)
        drawn = law.draw(energy, self.n_noise, generator=generator)
        s = law.log_ratio(energy, torch.cat([batch, drawn]))
        data, rest = s[: len(batch)], s[len(batch) :].logsumexp(0)
        return picking_loss(data, torch.logaddexp(data, rest), self.n_noise + 1)
