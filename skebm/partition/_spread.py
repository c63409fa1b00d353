"""log Z from weights in islands, with an error from how much the islands differ."""

from collections.abc import Callable

import torch
from torch import Tensor

N_ISLANDS = 16
"""Groups of particles that share nothing but the path; they measure the error."""

QUANTILE = 2.1314
"""97.5% quantile of Student's t with N_ISLANDS - 1 degrees of freedom."""


def across_islands(
    statistic: Callable[..., Tensor], *log_weights: Tensor
) -> tuple[float, float]:
    """Return the statistic of all islands and the half width of its 95% interval.

    The error is that of the jackknife over the G islands,
    se^2 = (G - 1) / G sum_g (s_(-g) - mean s_(-g))^2, with a t-quantile. It asks for
    no independence inside an island, so resampled particles count for what they are.

    ``statistic`` maps which islands are kept (k, G), as 0 and 1, and log weights
    (G, m) to k values.
    """
    identity = torch.eye(N_ISLANDS, dtype=torch.float64, device=log_weights[0].device)
    kept = torch.cat([torch.ones_like(identity[:1]), 1 - identity])
    values = statistic(kept, *log_weights)
    spread = (values[1:] - values[1:].mean()).square().sum()
    error = ((N_ISLANDS - 1) / N_ISLANDS * spread).sqrt()
    return float(values[0]), QUANTILE * float(error)


def forward_estimate(kept: Tensor, log_weights: Tensor) -> Tensor:
    """Return log mean w over the kept islands, shape (k,)."""
    n = kept.sum(1) * log_weights.shape[1]
    return (log_weights.logsumexp(1) + kept.log()).logsumexp(1) - n.log()


def reverse_estimate(kept: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Return log mean [w_F > 0] - log mean 1 / w_R over the kept islands, shape (k,).

    E[1 / w_R] = P(w_F > 0) / Z: no draw of the energy walks back to where it is +inf.
    """
    alive = torch.where(forward > -torch.inf, 0.0, forward)
    return forward_estimate(kept, alive) - forward_estimate(kept, -backward)


def bridge_estimate(kept: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Return Bennett's acceptance ratio over the kept islands, shape (k,).

    The root c of sum_F 1 / (1 + e^c / w) = sum_R 1 / (1 + w / e^c), by bisection.
    """
    low = (
        torch.stack([forward, backward]).nan_to_num(neginf=0.0).min().expand(len(kept))
    )
    high = torch.stack([forward, backward]).max().expand(len(kept))
    for _ in range(60):
        c = (low + high) / 2
        ahead = torch.sigmoid(forward - c[:, None, None]).sum(2)
        behind = torch.sigmoid(c[:, None, None] - backward).sum(2)
        is_low = (kept * (ahead - behind)).sum(1) > 0
        low, high = torch.where(is_low, c, low), torch.where(is_low, high, c)
    return (low + high) / 2
