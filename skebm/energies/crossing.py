"""Where increasing functions change their sign."""

from collections.abc import Callable

import torch
from torch import Tensor

N_HALVINGS, N_STEPS = 14, 12
"""Bisections, and then steps of the Illinois method, that find a quantile."""


def root(f: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Return where increasing functions, one per entry, change their sign.

    Parameters
    ----------
    f : callable
        Maps a tensor to one of its shape, entry by entry; not above zero at ``low``
        and not below it at ``high``.
    low, high : Tensor
        Ends.

    Returns
    -------
    Tensor
        By bisection and then by the Illinois method.
    """
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        under = f(middle) < 0
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    f_low, f_high = f(low), f(high)
    for _ in range(N_STEPS):
        gap = f_high - f_low
        step = torch.where(gap > 0, -f_low / gap, 0.5).clamp(0, 1)
        middle = low + step * (high - low)
        value = f(middle)
        under = value < 0
        # The end that stays counts half, so that it cannot stay for ever.
        f_low, f_high = (
            torch.where(under, value, f_low / 2),
            torch.where(under, f_high / 2, value),
        )
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return torch.where(f_high < -f_low, high, low)
