"""E(x) = E_part((x - m) / s) + c: an energy over rows in other units."""

from typing import Self

import torch
from torch import Generator, Tensor

from skebm.energies.energy import Energy
from skebm.energies.form import QuadraticForm
from skebm.energies.tilted import SampledEnergy


class Rescaled(Energy):
    """An energy of standardised rows as an energy of the rows themselves.

    E(x) = E_part((x - m) / s) + c with location m and scale s per column, so that
    log Z = log Z_part + sum_j log s_j - c. Energies that were fitted to columns in
    different units add up once they are rescaled to the same ones.

    Parameters
    ----------
    part : Energy
        The energy over standardised rows.
    location : tuple of float
        m, one number per column.
    scale : tuple of float
        s, one positive number per column.
    constant : float, default=0.0
        c, in nats.

    References
    ----------
    .. [1] Hinton (2002), Training products of experts by minimizing contrastive
       divergence, Neural Computation 14(8).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic, Rescaled
    >>> energy = Rescaled(Quadratic().build(1), location=(3.0,), scale=(2.0,))
    >>> energy(torch.tensor([[3.0], [5.0]])).tolist()
    [0.0, 0.5]
    """

    def __init__(
        self,
        part: Energy,
        location: tuple[float, ...],
        scale: tuple[float, ...],
        constant: float = 0.0,
    ) -> None:
        super().__init__()
        self.part = part
        self.location = location
        self.scale = scale
        self.constant = constant

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build the part."""
        self.part.build(n_features, generator=generator)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return E_part((x - m) / s) + c, shape (n,)."""
        e: Tensor = self.part(self._standardised(x)) + self.constant
        return e

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return E(x) and the part's gradient over s, both detached."""
        e, gradient = self.part.value_and_grad(self._standardised(x))
        return e + self.constant, gradient / x.new_tensor(self.scale)

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return log Z_T of the part + sum_j log s_j - c / T."""
        known = self.part.log_partition(temperature)
        if known is None:
            return None
        volume = float(torch.tensor(self.scale, dtype=torch.float64).log().sum())
        return known + volume - self.constant / temperature

    def as_quadratic(self) -> QuadraticForm | None:
        """Return the part's polynomial in the units of x."""
        form = self.part.as_quadratic()
        if form is None:
            return None
        location, scale = form.center.new_tensor([self.location, self.scale])
        return QuadraticForm(
            precision=form.precision / (scale[:, None] * scale),
            center=location + scale * form.center,
            slope=form.slope / scale,
            value=form.value + self.constant,
            size=form.size / scale.square(),
        )

    def sample(self, n_samples: int, *, generator: Generator) -> Tensor:
        """Draw independent rows.

        Parameters
        ----------
        n_samples : int
            Number of rows, >= 1.
        generator : Generator
            Source of randomness, on the energy's device.

        Returns
        -------
        Tensor of shape (n_samples, d)
            m + s z with z drawn from the part.

        Raises
        ------
        TypeError
            If the part cannot be drawn from.
        """
        if not isinstance(self.part, SampledEnergy):
            raise TypeError(
                f"{self.part!r} has no sample(); draw rows with run_chains, or rescale "
                "Gaussians() or Quadratic()."
            )
        z = self.part.sample(n_samples, generator=generator)
        return z.new_tensor(self.location) + z.new_tensor(self.scale) * z

    def _standardised(self, x: Tensor) -> Tensor:
        """Return (x - m) / s."""
        self._check_width(x)
        return (x - x.new_tensor(self.location)) / x.new_tensor(self.scale)

    def _check_width(self, x: Tensor) -> None:
        """Raise unless location and scale have one positive entry per column."""
        sizes = len(self.location), len(self.scale)
        if sizes != (x.shape[1], x.shape[1]) or not min(self.scale) > 0:
            raise ValueError(
                f"Got {sizes[0]} locations and {sizes[1]} scales, the least "
                f"{min(self.scale, default=None)}, for {x.shape[1]} columns, but "
                "expected one location and one positive scale per column."
            )
