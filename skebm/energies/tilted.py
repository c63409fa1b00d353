"""E(x) = E_base(x) + log Z_base + tilt(x): a known density, corrected."""

from typing import Protocol, Self, runtime_checkable

import torch
from torch import Generator, Tensor

from skebm.energies.energy import Energy, Frozen


@runtime_checkable
class SampledEnergy(Protocol):
    """A normalised energy that can be drawn from, such as `Gaussians`."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return E(x) of shape (n,)."""

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return log Z."""

    def sample(self, n_samples: int, *, generator: Generator) -> Tensor:
        """Draw rows.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        generator : Generator
            Source of randomness.

        Returns
        -------
        Tensor of shape (n_samples, d)
            Independent rows.
        """


class Tilted(Energy):
    """A base density b tilted by an energy: p(x) = b(x) exp(-tilt(x)) / Z.

    E(x) = -log b(x) + tilt(x). The base carries the bulk and the tails, the tilt what
    the base misses. A bounded or Lipschitz tilt over a base with Gaussian tails keeps E
    integrable whatever the weights, and a tilt that starts near zero starts at the base
    (exponential tilting). The base does not learn; ``clone`` keeps it in `Frozen`.

    Parameters
    ----------
    base : Energy
        A normalised density with ``sample`` and ``log_partition``, built: `Gaussians`
        or `Quadratic`.
    tilt : Energy
        The correction, for instance `MLP`.
    reach : float or None, default=None
        The tilt sees columns clipped to [-reach, reach], so that it is constant far
        away; None clips nothing. In units of the (scaled) columns, > 0.

    References
    ----------
    .. [1] Arbel, Zhou, Gretton (2021), Generalized energy based models, ICLR.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic, Tilted
    >>> tilted = Tilted(Quadratic().build(2), Quadratic()).build(2)
    >>> round(tilted(torch.zeros(1, 2)).item(), 4)  # log 2 pi
    1.8379
    """

    def __init__(self, base: Energy, tilt: Energy, reach: float | None = None) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.tilt = tilt
        self.reach = reach

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build the tilt; the base is built already."""
        self.tilt.build(n_features, generator=generator)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return -log b(x) + tilt(x), shape (n,)."""
        e: Tensor = self.base(x) + self.log_base_partition() + self.correction(x)
        return e

    def correction(self, x: Tensor) -> Tensor:
        """Return tilt(x) alone.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n,)
            -log p(x) / b(x), up to log Z.
        """
        e: Tensor = self.tilt(self.seen(x))
        return e

    def seen(self, x: Tensor) -> Tensor:
        """Return rows as the tilt sees them.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n, d)
            Clipped to +- ``reach``.
        """
        return x if self.reach is None else x.clamp(-self.reach, self.reach)

    def log_base_partition(self) -> float:
        """Return log Z of the base.

        Returns
        -------
        float
            Nats.

        Raises
        ------
        ValueError
            If the base does not know its log Z.
        """
        known = self.base.log_partition()
        if known is None:
            raise ValueError(
                f"Tilted needs a base with a known log Z; got {self.base!r}. Use "
                "Gaussians() or Quadratic(), matched to the rows."
            )
        return known

    def sample_base(self, n_samples: int, *, generator: Generator) -> Tensor:
        """Draw rows of the base density.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        generator : Generator
            Source of randomness, on the energy's device.

        Returns
        -------
        Tensor of shape (n_samples, d)
            Independent rows of b.

        Raises
        ------
        TypeError
            If the base cannot be drawn from.
        """
        law = self.base.part if isinstance(self.base, Frozen) else self.base
        if not isinstance(law, SampledEnergy):
            raise TypeError(f"{law!r} has no sample(); use Gaussians() or Quadratic().")
        with torch.no_grad():
            return law.sample(n_samples, generator=generator)
