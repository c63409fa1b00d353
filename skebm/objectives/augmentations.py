"""Views of a row: random changes that leave what matters about it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from skebm._params import Params, refuse
from skebm._torch import normal_like, uniform_like


class Augmentation(Params, ABC):
    """A random view of every row of a batch.

    References
    ----------
    .. [1] Chen, Kornblith, Norouzi, Hinton (2020), A simple framework for contrastive
       learning of visual representations, ICML.
    """

    @abstractmethod
    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Return views of rows x, shape (n, d), which stay as they are."""


@dataclass
class FeatureCorruption(Augmentation):
    """Replace a random share of the entries by those of other rows, column by column.

    Each entry is replaced with probability ``share`` by the same column of a random row
    of the batch: a draw from the column's empirical marginal, so that any kind of
    column keeps its values [1]_.

    Parameters
    ----------
    share : float, default=0.6
        In (0, 1].

    References
    ----------
    .. [1] Bahri, Jiang, Tay, Metzler (2022), SCARF: self-supervised contrastive
       learning using random feature corruption, ICLR.

    Examples
    --------
    >>> import torch
    >>> from skebm.objectives import FeatureCorruption
    >>> x = torch.arange(6.0).view(3, 2)
    >>> view = FeatureCorruption(1.0)(x, torch.Generator().manual_seed(0))
    >>> bool(torch.isin(view[:, 0], x[:, 0]).all())
    True
    """

    share: float = 0.6

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Return rows with entries of other rows, shape (n, d)."""
        refuse(self, {"share": (0 < self.share <= 1, "a number in (0, 1]")})
        other = torch.randint(
            len(x), x.shape, generator=generator, device=generator.device
        )
        chosen = uniform_like(x, generator) < self.share
        return torch.where(chosen, x.gather(0, other), x)


@dataclass
class GaussianNoise(Augmentation):
    """Add independent normal noise to every entry.

    Parameters
    ----------
    sigma : float, default=0.5
        Standard deviation, > 0, in the units of x; estimators scale columns to
        standard deviation 1 first.

    References
    ----------
    .. [1] Vincent, Larochelle, Lajoie, Bengio, Manzagol (2010), Stacked denoising
       autoencoders, Journal of Machine Learning Research 11.

    Examples
    --------
    >>> import torch
    >>> from skebm.objectives import GaussianNoise
    >>> GaussianNoise(0.1)(torch.zeros(2, 3), torch.Generator()).shape
    torch.Size([2, 3])
    """

    sigma: float = 0.5

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Return rows with noise, shape (n, d)."""
        refuse(self, {"sigma": (self.sigma > 0, "a number > 0")})
        return x + self.sigma * normal_like(x, generator)
