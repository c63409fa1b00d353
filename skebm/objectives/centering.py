"""Moving means that centre a gradient."""

from torch import Tensor, nn

OFFSET_RATE = 0.01
"""Share of a batch in the moving means."""

TINY = 1e-30
"""Means below it are zero: they end as denormal numbers, which slow products down."""


def follow(offset: Tensor, mean: Tensor) -> None:
    """Move an offset towards the mean of a batch, in place.

    Parameters
    ----------
    offset : Tensor of shape (d,)
        Moving mean, changed.
    mean : Tensor of shape (d,)
        Of the batch.
    """
    offset.lerp_(mean, OFFSET_RATE).copy_(nn.functional.hardshrink(offset, TINY))
