"""v + g'(x - a) + 0.5 (x - a)'P(x - a): what sums of Gaussian energies are."""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor

from skebm.exceptions import NotNormalizableError


class QuadraticForm(NamedTuple):
    """A quadratic polynomial, written around a center a.

    E(x) = v + g'(x - a) + 0.5 (x - a)'P(x - a). Sums and multiples of such energies are
    such energies: P = sum_i c_i P_i, and the minimum m solves P m = sum_i c_i P_i m_i.
    If P is positive definite, exp(-E) is a Gaussian with a closed-form log Z. A center
    near the minimum keeps log Z exact for rows far from the origin.

    Attributes
    ----------
    precision : Tensor of shape (d, d)
        Symmetric P, float64, on the CPU.
    center : Tensor of shape (d,)
        a.
    slope : Tensor of shape (d,)
        Gradient g at a.
    value : Tensor of shape ()
        Energy v at a.
    size : Tensor of shape (d,)
        sum_i |c_i| diag(P_i), what the rounding of P is relative to.
    """

    precision: Tensor
    center: Tensor
    slope: Tensor
    value: Tensor
    size: Tensor

    def times(self, factor: float) -> Self:
        """Return factor * E.

        Parameters
        ----------
        factor : float
            Any number.

        Returns
        -------
        QuadraticForm
            The multiple, around the same center.
        """
        return self._replace(
            precision=factor * self.precision,
            slope=factor * self.slope,
            value=factor * self.value,
            size=abs(factor) * self.size,
        )

    def plus(self, other: Self) -> Self:
        """Return E + E_other.

        Parameters
        ----------
        other : QuadraticForm
            A form over the same columns.

        Returns
        -------
        QuadraticForm
            The sum, around the center of this form.
        """
        step = self.center - other.center
        rise = other.precision @ step
        return self._replace(
            precision=self.precision + other.precision,
            slope=self.slope + other.slope + rise,
            value=self.value + other.value + step @ (other.slope + 0.5 * rise),
            size=self.size + other.size,
        )

    def minimum(self) -> Tensor:
        """Return the row of least energy, the mean of the Gaussian.

        Returns
        -------
        Tensor of shape (d,)
            m = a - P^-1 g.

        Raises
        ------
        NotNormalizableError
            If P is not positive definite.
        """
        unit, factor = self._cholesky()
        lowered = torch.cholesky_solve((unit * self.slope)[:, None], factor)[:, 0]
        return self.center - unit * lowered

    def log_partition(self, temperature: float = 1.0) -> float:
        """Return log Z_T.

        Parameters
        ----------
        temperature : float, default=1.0
            T > 0.

        Returns
        -------
        float
            (d / 2) log(2 pi T) - 0.5 log |P| - E(m) / T, in nats.

        Raises
        ------
        NotNormalizableError
            If P is not positive definite.
        """
        unit, factor = self._cholesky()
        half_log_det = factor.diagonal().log().sum() - unit.log().sum()
        scaled = (unit * self.slope)[:, None]
        white = torch.linalg.solve_triangular(factor, scaled, upper=False)
        least = self.value - 0.5 * white.square().sum()
        half = 0.5 * len(unit) * math.log(2 * math.pi * temperature)
        return half - float(half_log_det + least / temperature)

    def _cholesky(self) -> tuple[Tensor, Tensor]:
        """Return u (d,) and lower L with diag(u) P diag(u) = L L'."""
        unit = self.size.rsqrt()
        factor, info = torch.linalg.cholesky_ex(unit[:, None] * self.precision * unit)
        # Precisions that cancel leave pivots of rounding size, of either sign.
        least = 1000 * len(unit) * torch.finfo(factor.dtype).eps
        if int(info) or not bool((factor.diagonal().square() > least).all()):
            raise NotNormalizableError(
                "exp(-E) has no finite integral: the combined precision matrix must be "
                "positive definite; got least eigenvalue "
                f"{float(torch.linalg.eigvalsh(self.precision)[0]):.3g}. Subtract "
                "less (a smaller factor), or confine the rows with Constrained."
            )
        return unit, factor
