"""E(x) = 0.5 (x - m)' P (x - m): the Gaussian."""

import math
from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.energy import Energy
from skebm.energies.form import QuadraticForm


class Quadratic(Energy):
    """The Gaussian energy with its precision in log-Cholesky form.

    E(x) = 0.5 |L'(x - m)|^2 with L lower triangular and exp(.) on its diagonal, so
    P = L L' is positive definite for every parameter value and
    log Z = (d / 2) log 2 pi - sum_j log L_jj is exact. (P = M M' has saddles that
    leave log Z wrong.)

    Attributes
    ----------
    mean : Parameter of shape (d,)
        Mean m.
    log_diagonal : Parameter of shape (d,)
        Logarithms of the diagonal of L.
    lower : Parameter of shape (d, d)
        Entries of L below the diagonal; the rest is ignored.

    References
    ----------
    .. [1] Pinheiro, Bates (1996), Unconstrained parametrizations for
       variance-covariance matrices, Statistics and Computing 6(3).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> energy = Quadratic().build(2)
    >>> energy(torch.tensor([[0.0, 2.0]])).item()
    2.0
    """

    mean: nn.Parameter
    log_diagonal: nn.Parameter
    lower: nn.Parameter

    def __init__(self) -> None:
        super().__init__()

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Start at the standard normal: m = 0, P = I."""
        self.mean = nn.Parameter(torch.zeros(n_features))
        self.log_diagonal = nn.Parameter(torch.zeros(n_features))
        self.lower = nn.Parameter(torch.zeros(n_features, n_features))
        return self

    def match(self, mean: Tensor, covariance: Tensor) -> Self:
        """Take a given mean and covariance.

        Parameters
        ----------
        mean : Tensor of shape (d,)
            Mean m.
        covariance : Tensor of shape (d, d)
            Positive definite covariance.

        Returns
        -------
        self : Quadratic
            The energy of N(mean, covariance), in the dtype of ``mean``.

        Raises
        ------
        torch.linalg.LinAlgError
            If ``covariance`` is not positive definite.
        """
        precision = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        factor = torch.linalg.cholesky(precision)
        self.mean = nn.Parameter(mean.clone())
        self.log_diagonal = nn.Parameter(factor.diagonal().log())
        self.lower = nn.Parameter(factor.tril(-1))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return 0.5 |L'(x - m)|^2, shape (n,)."""
        factor = self.lower.tril(-1) + self.log_diagonal.exp().diag()
        return 0.5 * ((x - self.mean) @ factor).square().sum(1)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return E(x) of shape (n,) and P (x - m) of shape (n, d), both detached."""
        with torch.no_grad():
            factor = self.lower.tril(-1) + self.log_diagonal.exp().diag()
            white = (x - self.mean) @ factor
            return 0.5 * white.square().sum(1), white @ factor.T

    def log_partition(self, temperature: float = 1.0) -> float:
        """Return (d / 2) log(2 pi T) - sum_j log L_jj."""
        d = len(self.mean)
        half = 0.5 * d * math.log(2 * math.pi * temperature)
        return half - float(self.log_diagonal.detach().sum())

    def as_quadratic(self) -> QuadraticForm:
        """Return E around its mean, in float64 on the CPU."""
        mean, log_diagonal, lower = (
            weight.detach().to("cpu", torch.float64)
            for weight in (self.mean, self.log_diagonal, self.lower)
        )
        factor = lower.tril(-1) + log_diagonal.exp().diag()
        precision, zero = factor @ factor.T, torch.zeros_like(mean)
        return QuadraticForm(precision, mean, zero, zero.sum(), precision.diagonal())

    def sample(self, n_samples: int, *, generator: Generator) -> Tensor:
        """Draw exact samples of the density at temperature 1.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        generator : Generator
            Source of randomness, on the energy's device.

        Returns
        -------
        Tensor of shape (n_samples, d)
            m + L'^-1 z with z standard normal.
        """
        with torch.no_grad():
            factor = self.lower.tril(-1) + self.log_diagonal.exp().diag()
            shape = (len(self.mean), n_samples)
            z = torch.empty(shape, dtype=factor.dtype, device=factor.device)
            z.normal_(generator=generator)
            offset = torch.linalg.solve_triangular(factor.T, z, upper=True)
            drawn: Tensor = self.mean + offset.T
            return drawn
