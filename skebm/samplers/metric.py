"""The metric of a kernel: a factor L with L L' close to the covariance of x."""

import torch
from torch import Tensor

_DENSE_DRAWS = 20
"""Draws per column that a dense metric needs."""

_DENSE_COLUMNS = 512
"""Above this the products with a dense factor cost more than they bring."""


def displaced(x: Tensor, v: Tensor, factor: Tensor | None) -> Tensor:
    """Return x + L v row by row.

    Parameters
    ----------
    x, v : Tensor of shape (n, d)
        Places, and displacements in the units of the metric.
    factor : Tensor of shape (d,) or (d, d), or None
        L: a diagonal, a lower triangle, or the identity.

    Returns
    -------
    Tensor of shape (n, d)
        New places.
    """
    if factor is None:
        return x + v
    if factor.ndim == 1:
        return torch.addcmul(x, v, factor)
    return torch.addmm(x, v, factor.T)


def pulled_back(grad: Tensor, factor: Tensor | None) -> Tensor:
    """Return L' g row by row: the gradient in the units of the metric.

    Parameters
    ----------
    grad : Tensor of shape (n, d)
        Gradients with respect to x.
    factor : Tensor of shape (d,) or (d, d), or None
        L: a diagonal, a lower triangle, or the identity.

    Returns
    -------
    Tensor of shape (n, d)
        Gradients with respect to u, where x = L u.
    """
    if factor is None:
        return grad
    return grad * factor if factor.ndim == 1 else grad @ factor


def spread(x: Tensor) -> Tensor | None:
    """Return the standard deviation of each column over the chains, as a first metric.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        One row per chain.

    Returns
    -------
    Tensor of shape (d,) or None
        1 where a column does not vary; None with one chain.
    """
    if len(x) < 2:
        return None
    scale = x.std(0)
    return torch.where((scale > 0) & scale.isfinite(), scale, torch.ones_like(scale))


def estimate_factor(draws: Tensor, old: Tensor | None) -> Tensor:
    """Return L from draws pooled over chains and steps.

    Dense, S = (1 - a) C + a diag(C) with the intensity a that minimises the expected
    error of the correlations [1]_, when there are many draws per column; else the
    diagonal, times the width of the widest direction that it leaves.

    Parameters
    ----------
    draws : Tensor of shape (n, d)
        Pooled draws.
    old : Tensor of shape (d,) or (d, d), or None
        The factor in use, whose scale a column keeps that did not move.

    Returns
    -------
    Tensor of shape (d,) or (d, d)
        The factor, in the dtype of the draws.

    References
    ----------
    .. [1] Schafer, Strimmer (2005), A shrinkage approach to large-scale covariance
       matrix estimation, Statistical Applications in Genetics and Molecular Biology
       4(1).
    """
    n, d = draws.shape
    centred = draws.double() - draws.double().mean(0)
    scale = centred.square().mean(0).sqrt()
    moved = (scale > 0) & scale.isfinite()
    scale = torch.where(moved, scale, _diagonal(old, scale))
    standard = centred / scale
    if n >= _DENSE_DRAWS * d and d <= _DENSE_COLUMNS:
        return (scale[:, None] * _correlation_factor(standard)).to(draws.dtype)
    return (scale * _widest(standard)).to(draws.dtype)


def _diagonal(factor: Tensor | None, like: Tensor) -> Tensor:
    """Return the scale of each column under a factor."""
    if factor is None:
        return torch.ones_like(like)
    return (
        factor.to(like) if factor.ndim == 1 else factor.to(like).square().sum(1).sqrt()
    )


def _correlation_factor(standard: Tensor) -> Tensor:
    """Return the Cholesky factor of the shrunk correlation matrix."""
    n = len(standard)
    correlation = standard.T @ standard / n
    off = correlation - correlation.diagonal().diag()
    noise = (1 - off.square()).square().sum() - len(off)
    intensity = (noise / n / off.square().sum().clamp(min=1e-12)).clamp(0.0, 1.0)
    identity = torch.eye(len(off), dtype=off.dtype, device=off.device)
    # The floor keeps the factor regular where two columns are copies.
    intensity = intensity.clamp(min=1e-6)
    factor: Tensor = torch.linalg.cholesky(identity + (1 - intensity) * off)
    return factor


def _widest(standard: Tensor) -> Tensor:
    """Return the standard deviation of the widest direction, less its noise."""
    n, d = standard.shape
    direction = standard[-1]
    for _ in range(20):
        direction = standard.T @ (standard @ direction)
        direction = direction / direction.norm().clamp(min=1e-30)
    noise = 1 + (d / n) ** 0.5
    width: Tensor = (standard @ direction).norm() / n**0.5 / noise
    return width.clamp(min=1.0)
