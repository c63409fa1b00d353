"""Energies whose log Z is known."""

import math

import torch

from skebm.energies import Energy, Gaussians, Quadratic

GAUSSIAN_LOG_Z = 20.70233
"""0.5 * 10 * log(2 pi) + 0.5 * sum of the logs of 10 variances from 1 to 100."""


class Formula(Energy):
    """An energy from a function of the rows."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(d, variance=1.0):
    identity = torch.eye(d, dtype=torch.float64)
    return Quadratic().match(torch.zeros(d, dtype=torch.float64), variance * identity)


def gaussian(rotated=False):
    """Return a Gaussian energy in 10 columns with condition number 100."""
    variance = torch.logspace(0, 2, 10, dtype=torch.float64).diag()
    if rotated:
        root = torch.randn(10, 10, generator=generator(), dtype=torch.float64)
        q = torch.linalg.qr(root).Q
        variance = q @ variance @ q.T
    return Quadratic().match(torch.zeros(10, dtype=torch.float64), variance)


def ring():
    """Return 8 equal Gaussians of sd 0.5 on a circle of radius 4; log Z = 0."""
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    means = 4 * torch.stack([angle.cos(), angle.sin()], 1)
    covariance = 0.25 * torch.eye(2, dtype=torch.float64)
    return Gaussians().match(
        torch.ones(8, dtype=torch.float64), means, covariance.expand(8, 2, 2)
    )


def bowl():
    """Return sqrt(1 + |x|^2): Z = 2 K_1(1) in one column, 4 pi / e in two."""
    return Formula(lambda x: (1 + x.square().sum(1)).sqrt())
