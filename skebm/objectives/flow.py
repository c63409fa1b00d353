"""x = m + L T(z): a generator network whose density is known."""

import math

import torch
from torch import Generator, Tensor, nn

from skebm._torch import normal_like
from skebm.energies.networks import perceptron
from skebm.objectives.noise_rows import moments

LEAD = 5.0
"""Factor on the affine parameters: with one learning rate for both players, the
generator must move faster than the energy it follows, or they circle each other."""
LARGEST_LOG_SCALE = 2.0
"""Bound on the log of the factor by which one layer stretches a column."""


class Coupling(nn.Module):
    """Move half of the columns by what the other half says.

    y_a = z_a exp(s(z_p)) + t(z_p), y_p = z_p, with log |dy/dz| = sum s. It starts at
    the identity.

    Parameters
    ----------
    n_features : int
        Columns, >= 2.
    n_hidden : int
        Units of both hidden layers.
    parity : int
        0 moves the even columns, 1 the odd ones.
    generator : Generator
        Source of the weights.

    References
    ----------
    .. [1] Dinh, Sohl-Dickstein, Bengio (2017), Density estimation using real NVP, ICLR.
    """

    moved: Tensor

    def __init__(
        self, n_features: int, n_hidden: int, parity: int, generator: Generator
    ) -> None:
        super().__init__()
        device = generator.device
        moved = torch.arange(n_features, device=device) % 2 == parity
        self.register_buffer("moved", moved)
        self.network = perceptron(
            (n_features, n_hidden, n_hidden, 2 * n_features),
            "silu",
            generator=generator,
            last_scale=0.0,
        )

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return y (n, d) and log |dy/dz| (n,)."""
        kept = z.masked_fill(self.moved, 0.0)
        scale, shift = self.network(kept).chunk(2, 1)
        scale = LARGEST_LOG_SCALE * (scale / LARGEST_LOG_SCALE).tanh()
        scale = scale.masked_fill(~self.moved, 0.0)
        shift = shift.masked_fill(~self.moved, 0.0)
        return z * scale.exp() + shift, scale.sum(1)


class Flow(nn.Module):
    """x = m + L T(z), z standard normal, T couplings and L lower triangular.

    It starts at the Gaussian with the moments of the rows.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Training rows.
    n_layers : int
        Couplings, >= 0; one column has none, its generator stays Gaussian.
    n_hidden : int
        Units of the hidden layers.
    generator : Generator
        Source of the weights, on the rows' device.
    """

    def __init__(
        self, x: Tensor, n_layers: int, n_hidden: int, generator: Generator
    ) -> None:
        super().__init__()
        mean, covariance = (values.to(x.device, x.dtype) for values in moments(x))
        factor = torch.linalg.cholesky(covariance)
        self.mean = nn.Parameter(mean / LEAD)
        self.log_diagonal = nn.Parameter(factor.diagonal().log() / LEAD)
        self.lower = nn.Parameter(factor.tril(-1) / LEAD)
        d = x.shape[1]
        n_layers = n_layers if d > 1 else 0
        couplings = [Coupling(d, n_hidden, i % 2, generator) for i in range(n_layers)]
        self.couplings = nn.ModuleList(couplings).to(x.dtype)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return m and L.

        Returns
        -------
        mean : Tensor of shape (d,)
            m.
        factor : Tensor of shape (d, d)
            L.
        """
        diagonal = (LEAD * self.log_diagonal).exp().diag()
        return LEAD * self.mean, LEAD * self.lower.tril(-1) + diagonal

    def forward(self, n: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return n rows (n, d) and -log q at each of them (n,)."""
        z = normal_like(self.mean.detach().expand(n, -1).contiguous(), generator)
        half = 0.5 * z.shape[1] * math.log(2 * math.pi)
        surprise = 0.5 * z.square().sum(1) + half + LEAD * self.log_diagonal.sum()
        for coupling in self.couplings:
            z, stretch = coupling(z)
            surprise = surprise + stretch
        mean, factor = self.affine()
        return mean + z @ factor.T, surprise
