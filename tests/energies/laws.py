"""Gaussians in two columns, rows, and a user's region: what several tests share."""

import torch

from skebm.energies import Quadratic


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


MEANS = double([0.5, -1.0], [-1.5, 1.0], [2.0, 0.5])
COVARIANCES = double(
    [[1.5, 0.6], [0.6, 0.8]], [[0.7, -0.3], [-0.3, 2.0]], [[0.4, 0.1], [0.1, 0.3]]
)
PRECISIONS = COVARIANCES.inverse()


def gaussian(k):
    return Quadratic().match(MEANS[k], COVARIANCES[k])


def rows(n=50, d=3, seed=3):
    return 2 * torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def ordered(x):
    return (x.diff(dim=1) >= 0).all(1)


def pooled(x):
    """The nearest ordered pair: both at their mean where they are out of order."""
    return x.mean(1, keepdim=True).expand_as(x)
