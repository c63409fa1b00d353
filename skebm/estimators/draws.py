"""How many rows to draw."""

from numbers import Integral


def check_n_samples(n_samples):
    """Raise unless a number of rows is an integer >= 1.

    Parameters
    ----------
    n_samples : int
        Rows to draw.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if not isinstance(n_samples, Integral) or n_samples < 1:
        raise ValueError(
            f"n_samples must be >= 1 and an integer; got n_samples={n_samples!r}."
        )
