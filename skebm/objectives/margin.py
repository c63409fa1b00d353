"""The hinge loss: data lie a margin below other rows."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor, nn

from skebm.energies import Energy
from skebm.objectives.noise_rows import NoiseRows, noise_rows
from skebm.objectives.objective import Loss, Objective


@dataclass
class Margin(Objective):
    """Ask that each data row lies a margin below a noise row.

    L = mean max(0, m + E(x) - E(x^-)) over pairs of a data row x and a noise row x^-.
    A pair whose gap is at least m has loss and gradient zero.

    Parameters
    ----------
    margin : float, default=1.0
        m, > 0, in units of E.
    noise : Energy or None, default=None
        Density of x^-, with ``sample``, in `Frozen` so that clone keeps its weights.
        None is the base of a `Tilted` energy, for others the Gaussian with the moments
        of the training rows.

    Notes
    -----
    Limits: it ranks rows and estimates no density; exp(-E) has no meaning beyond order.

    References
    ----------
    .. [1] LeCun, Chopra, Hadsell, Ranzato, Huang (2006), A tutorial on energy-based
       learning, Predicting Structured Data, MIT Press.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.objectives import Margin
    >>> x, g = torch.randn(100, 2), torch.Generator().manual_seed(0)
    >>> energy, objective = Quadratic().build(2), Margin(margin=0.5)
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.backward()
    """

    margin: float = 1.0
    noise: Energy | None = None

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> NoiseRows:
        """Return the density of the noise rows.

        Raises
        ------
        ValueError
            If ``margin`` is not positive or the noise is no normalised density.
        """
        if not self.margin > 0:
            raise ValueError(f"Got margin={self.margin!r}, but expected a number > 0.")
        return noise_rows(self.noise, energy, x)

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the mean hinge loss of ``batch`` against as many noise rows."""
        law = cast(NoiseRows, state)
        drawn = law.draw(energy, len(batch), generator=generator)
        e = energy(torch.cat([batch, drawn]))
        gap = e[len(batch) :] - e[: len(batch)]
        short = (self.margin - gap).clamp(min=0)
        violated = (short > 0).to(gap.dtype).mean()
        metrics = {"gap": gap.detach().mean(), "violated": violated}
        return Loss(short.mean(), metrics)
