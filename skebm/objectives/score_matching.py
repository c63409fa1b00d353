"""Score matching: fit dE/dx to the data, whatever Z is."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from skebm._torch import uniform_like
from skebm.energies import Energy
from skebm.objectives.gradients import grad_in_graph, hessian_products
from skebm.objectives.objective import Loss, Objective


@dataclass
class ScoreMatching(Objective):
    """Exact score matching: the trace of the Hessian, column by column.

    L = mean 0.5 |dE/dx|^2 - tr d2E/dx2, which is 0.5 E |dE/dx + d log p_data/dx|^2 up
    to a constant of the data. Its minimum over E is the density of the data.

    Notes
    -----
    Cost: d Hessian products per row, so O(d) times a gradient; for many columns use
    `SlicedScoreMatching`. The energy must be twice differentiable: a ReLU network has
    the Hessian 0 almost everywhere and learns a constant. Limits: blind to the weights
    of modes that are far apart.

    References
    ----------
    .. [1] Hyvarinen (2005), Estimation of non-normalized statistical models by score
       matching, Journal of Machine Learning Research 6.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.objectives import ScoreMatching
    >>> x, g = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), torch.Generator()
    >>> energy, objective = Quadratic().build(2), ScoreMatching()
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.item()  # 0.5 * 2 - 2
    -1.0
    """

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return mean 0.5 |dE/dx|^2 - tr d2E/dx2 of ``batch``."""
        (leaf,), _, (gradient,) = grad_in_graph(energy, batch)
        n, d = batch.shape
        axes = torch.eye(d, dtype=leaf.dtype, device=leaf.device)
        products = hessian_products(gradient, leaf, axes[:, None].expand(d, n, d))
        trace = products.diagonal(dim1=0, dim2=2).sum(1)
        return _loss(gradient, trace)


@dataclass
class SlicedScoreMatching(Objective):
    """Score matching with the trace from random directions.

    L = mean 0.5 |dE/dx|^2 - v' (d2E/dx2) v with v of independent signs, so that
    E v' H v = tr H: an unbiased estimate of `ScoreMatching`, exact for a diagonal
    Hessian.

    Parameters
    ----------
    n_slices : int, default=1
        Directions per row, >= 1; the variance falls as 1 / n_slices.

    Notes
    -----
    Cost: n_slices Hessian products per row, whatever d is. Limits: those of
    `ScoreMatching`, and noise from the off-diagonal of the Hessian.

    References
    ----------
    .. [1] Song, Garg, Shi, Ermon (2019), Sliced score matching: a scalable approach to
       density and score estimation, UAI.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.objectives import SlicedScoreMatching
    >>> x, g = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), torch.Generator()
    >>> energy, objective = Quadratic().build(2), SlicedScoreMatching(n_slices=3)
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.item()  # 0.5 * 2 - 2
    -1.0
    """

    n_slices: int = 1

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> nn.Module:
        """Return nothing to keep.

        Raises
        ------
        ValueError
            If ``n_slices`` is below 1.
        """
        if self.n_slices < 1 or self.n_slices != int(self.n_slices):
            raise ValueError(
                f"Got n_slices={self.n_slices!r}, but expected an integer >= 1."
            )
        return nn.Module()

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the sliced score matching loss of ``batch``."""
        (leaf,), _, (gradient,) = grad_in_graph(energy, batch)
        shape = (self.n_slices, *batch.shape)
        signs = uniform_like(leaf.detach().expand(shape).contiguous(), generator)
        v = torch.where(signs < 0.5, -1.0, 1.0).to(leaf.dtype)
        products = hessian_products(gradient, leaf, v)
        return _loss(gradient, (v * products).sum(2).mean(0))


def _loss(gradient: Tensor, trace: Tensor) -> Loss:
    """Return mean 0.5 |g|^2 - tr H, and the two parts."""
    square = gradient.square().sum(1).mean()
    curvature = trace.mean()
    metrics = {"gradient": square.detach(), "curvature": curvature.detach()}
    return Loss(0.5 * square - curvature, metrics)
