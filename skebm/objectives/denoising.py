"""Denoising score matching: dE/dx at a blurred row points along the blur."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from skebm._torch import normal_like
from skebm.energies import Energy
from skebm.energies.denoiser import NoiseConditional, check_level
from skebm.objectives.gradients import grad_in_graph
from skebm.objectives.objective import Loss, Objective


@dataclass
class DenoisingScoreMatching(Objective):
    """Denoising score matching at one noise level.

    For y = x + sigma z with z standard normal,

    L = mean 0.5 sigma^2 |dE/dy - (y - x) / sigma^2|^2 = mean 0.5 |sigma dE/dy - z|^2.

    dE/dy meets **plus** noise / sigma^2: the energy rises along the noise. The minimum
    is the density of y, the data blurred by sigma: for Gaussian data of covariance S
    the precision inv(S + sigma^2 I), not inv(S).

    Parameters
    ----------
    sigma : float, default=0.1
        Noise level in units of the (scaled) columns, > 0; typical 0.05 to 0.5. Small
        ones blur less and learn more slowly, the noise of the gradient grows as
        1 / sigma.

    Notes
    -----
    One gradient, differentiated once more. Values at different sigma do not compare. A
    noise-conditional energy is trained as it is read, at its own ``sigma``: give both
    the same. Limits: blind to the weights of modes further apart than a few sigma; see
    `MultiNoiseScoreMatching`.

    References
    ----------
    .. [1] Vincent (2011), A connection between score matching and denoising
       autoencoders, Neural Computation 23(7).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.objectives import DenoisingScoreMatching
    >>> x, g = torch.randn(100, 2), torch.Generator().manual_seed(0)
    >>> energy, objective = Quadratic().build(2), DenoisingScoreMatching(sigma=0.3)
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.backward()
    """

    sigma: float = 0.1

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> nn.Module:
        """Return nothing to keep.

        Raises
        ------
        ValueError
            If ``sigma`` is not positive.
        """
        check_level(self.sigma)
        return nn.Module()

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the denoising loss of ``batch`` under fresh noise."""
        z = normal_like(batch, generator)
        _, _, (gradient,) = grad_in_graph(energy, batch + self.sigma * z)
        value = 0.5 * (self.sigma * gradient - z).square().sum(1).mean()
        return Loss(value, {})


@dataclass
class MultiNoiseScoreMatching(Objective):
    """Denoising score matching at many noise levels at once.

    L = mean 0.5 |s dE/dy - z|^2 + w mean 0.25 (s dE/ds - (d - |z|^2))^2

    for E(y; s), y = x + s z, and the level s of each row drawn from ``sigmas``: every
    level counts the same, since s dE/dy is of order one at all of them. Wide levels see
    the modes connected that narrow ones see apart. The second term, off by default,
    matches the change of E with s and so carries the modes' weights, and one log Z,
    down to the level at which the energy is read [2]_.

    Parameters
    ----------
    sigmas : sequence of float, default=(0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
        Noise levels in units of the (scaled) columns, > 0: a geometric sequence that
        contains the level at which the energy is read and goes up to the distance of
        the modes.
    level_weight : float, default=0.0
        w, >= 0; 1 for an energy with a free offset, such as `NoisyMLP`. A `Denoiser` is
        near zero on all data and cannot follow: leave it at 0.

    Notes
    -----
    Needs a `NoiseConditional` energy. Limits: with ``level_weight=0`` each level has
    a constant of its own, and mode weights read at a level below the gaps between the
    modes are off, by .06 for two modes 8 sd apart; chains that walk down the levels
    find them.

    References
    ----------
    .. [1] Song, Ermon (2019), Generative modeling by estimating gradients of the data
       distribution, NeurIPS.
    .. [2] Guth, Kadkhodaie, Simoncelli (2025), Learning normalized image densities via
       dual score matching, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies.denoiser import NoisyMLP
    >>> from skebm.objectives import MultiNoiseScoreMatching
    >>> x, g = torch.randn(100, 2), torch.Generator().manual_seed(0)
    >>> energy = NoisyMLP(sigma=0.1).build(2)
    >>> objective = MultiNoiseScoreMatching((0.1, 0.3, 1.0), level_weight=1.0)
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.backward()
    """

    sigmas: Sequence[float] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    level_weight: float = 0.0

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> nn.Module:
        """Return nothing to keep.

        Raises
        ------
        TypeError
            If the energy takes no noise level.
        ValueError
            If there is no level, one is not positive, or the weight is negative.
        """
        if not len(self.sigmas) or not self.level_weight >= 0:
            raise ValueError(
                f"Got sigmas={self.sigmas!r} and level_weight={self.level_weight!r}, "
                "but expected at least one level and a weight >= 0."
            )
        for sigma in self.sigmas:
            check_level(sigma)
        _noise_conditional(energy)
        return nn.Module()

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the denoising loss of ``batch`` under fresh noise of many levels."""
        family = _noise_conditional(energy)
        levels = torch.tensor(list(self.sigmas), dtype=batch.dtype, device=batch.device)
        n, k = len(batch), len(levels)
        # Levels in turn from a random one on: each row's is uniform, all are present.
        first = torch.randint(k, (1,), generator=generator, device=batch.device)
        index = (torch.arange(n, device=batch.device) + first) % k
        sigma, z = levels[index], normal_like(batch, generator)
        y = batch + sigma[:, None] * z
        _, _, (by_row, by_level) = grad_in_graph(family, y, sigma)
        value = 0.5 * (sigma[:, None] * by_row - z).square().sum(1).mean()
        if self.level_weight:
            miss = sigma * by_level - (batch.shape[1] - z.square().sum(1))
            value = value + self.level_weight * 0.25 * miss.square().mean()
        return Loss(value, {})


def _noise_conditional(energy: Energy) -> NoiseConditional:
    """Return the energy if it takes a noise level."""
    if not isinstance(energy, NoiseConditional):
        raise TypeError(
            f"MultiNoiseScoreMatching needs an energy that takes a noise level; got "
            f"{energy!r}. Use Denoiser() (energy='denoiser'), or "
            "DenoisingScoreMatching ('dsm') for one level."
        )
    return energy
