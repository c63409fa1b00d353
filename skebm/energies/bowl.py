"""E(x) = sqrt(scale^2 + |x|^2): a confining bowl."""

import math
from typing import Self

import torch
from torch import Generator, Tensor

from skebm.energies.energy import Energy


class Bowl(Energy):
    """A bowl that is round at the bottom and a cone far away.

    E(x) = sqrt(scale^2 + |x|^2), the energy of the hyperbolic distribution [1]_. Its
    gradient x / E(x) is shorter than 1 everywhere, so Langevin steps never explode, and
    exp(-E) has a finite integral, with K the modified Bessel function of the second
    kind,

        Z = 2 (2 pi T)^((d - 1) / 2) scale^((d + 1) / 2) K_((d + 1) / 2)(scale / T).

    Added to an energy whose slope stays below 1 it makes that one integrable too, for
    instance a `Transformer`; ``4.0 * Bowl()`` holds slopes below 4.

    Parameters
    ----------
    scale : float, default=1.0
        Radius of the round bottom, in units of the (scaled) columns, > 0.

    References
    ----------
    .. [1] Barndorff-Nielsen (1977), Exponentially decreasing distributions for the
       logarithm of particle size, Proceedings of the Royal Society A 353.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Bowl
    >>> energy = Bowl().build(1)
    >>> energy(torch.tensor([[0.0], [1e6]])).tolist()
    [1.0, 1000000.0]
    >>> round(energy.log_partition(), 4)  # log 2 K_1(1)
    0.1855
    """

    n_features: int | None

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.n_features = None

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Note the number of columns, which log Z depends on; there are no weights."""
        if not self.scale > 0:
            raise ValueError(
                f"Got scale={self.scale!r}, but expected a radius > 0, as 1.0 is."
            )
        self.n_features = n_features
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return sqrt(scale^2 + |x|^2), shape (n,)."""
        return (x.square().sum(1) + self.scale**2).sqrt()

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return E and dE/dx = x / E."""
        with torch.no_grad():
            e = self(x)
            return e, x / e[:, None]

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return log Z_T; None before `build`."""
        if self.n_features is None:
            return None
        d, t = self.n_features, temperature
        radial = 0.5 * (d - 1) * math.log(2 * math.pi * t)
        order = 0.5 * (d + 1)
        round_part = order * math.log(self.scale) + log_bessel_k(order, self.scale / t)
        return math.log(2) + radial + round_part


def log_bessel_k(order: float, z: float) -> float:
    """Return log K_order(z), the modified Bessel function of the second kind.

    From K_0 and K_1, or K_(1/2) = K_(-1/2), by the recurrence
    K_(v+1) = K_(v-1) + (2 v / z) K_v, which is stable upwards; in ratios, so that high
    orders do not overflow.

    Parameters
    ----------
    order : float
        A multiple of 1/2, >= 1/2.
    z : float
        Argument, > 0.

    Returns
    -------
    float
        The logarithm.

    References
    ----------
    .. [1] Olver et al. (2010), NIST handbook of mathematical functions, chapter 10.
    """
    if order % 1:
        v, log_k, ratio = 0.5, 0.5 * math.log(0.5 * math.pi / z) - z, 1.0
    else:
        at = torch.tensor(z, dtype=torch.float64)
        k0 = float(torch.special.scaled_modified_bessel_k0(at))
        k1 = float(torch.special.scaled_modified_bessel_k1(at))
        v, log_k, ratio = 1.0, math.log(k1) - z, k1 / k0
    while v < order:
        ratio = 2 * v / z + 1 / ratio
        log_k += math.log(ratio)
        v += 1
    return log_k
