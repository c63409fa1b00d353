"""A penalty on weights whose strength is learned with them."""

from typing import TypeVar

from torch import Tensor

SPREAD_FLOOR = 0.1
"""Floor on the mean square of the weights."""

LARGEST_DECAY = 0.1
"""On few rows a step along a larger penalty would overshoot zero."""

Spread = TypeVar("Spread", float, Tensor)


def adaptive_decay(
    spread: Spread, n_rows: float | Tensor, floor: float = SPREAD_FLOOR
) -> Spread:
    """Return the factor on w in the gradient of a penalty per row.

    min(0.1, 1 / (n (s + floor))), with s the mean of w^2: the weights are normal with a
    variance that is learned, so that few rows mean small weights and many leave them
    free.

    Parameters
    ----------
    spread : float or Tensor
        s.
    n_rows : float or Tensor of shape ()
        n.
    floor : float, default=0.1
        Keeps the factor finite at w = 0.

    Returns
    -------
    float or Tensor
        Of the type and shape of ``spread``.
    """
    found = 1 / (n_rows * (spread + floor))
    if isinstance(found, Tensor) and isinstance(spread, Tensor):
        return found.clamp(max=LARGEST_DECAY)
    return min(LARGEST_DECAY, float(found))
