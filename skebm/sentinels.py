"""Values that may stand for missing ones, such as -999 or the year 9999."""

import re

import numpy as np

MIN_REPEATS = 2
GAP = 3.0
N_NEAR = 10
_NUMBER = re.compile(
    r"-?(?:9{2,}|8{2,}|7{2,}|9+[678]|9{2,}\.9+|999\.25)|-[1-9]00+"
    r"|-?32767|-32768|-?65535|-?2147483647|-2147483648"
)
_DATES = re.compile(
    r"(?:9999|2999|2100|2099)-(?:12-31|01-01)|(?:0001|1753|1800|1900|1970)-01-01"
    r"|1899-12-3[01]"
)


def find_sentinels(values, kind):
    """Find values that may stand for missing ones.

    Such a value looks like a mark (digits that are all 9, 8 or 7, or end in 6 to 8
    behind nines; -100, -200, -1000; limits of integers; 9999-12-31, 1900-01-01), comes
    at least twice, is the least or the largest value, and lies apart: its distance to
    the others is more than 3 times the largest gap between the ten of them next to it,
    and, for a number, more than their distance from there to their median. Up to four
    such values may follow each other at an end.

    Parameters
    ----------
    values : array-like of shape (n_samples,)
        Numbers, or dates in seconds since 1970-01-01; NaN is missing.
    kind : {"number", "date"}
        What the values are.

    Returns
    -------
    dict of str -> int
        Each such value as text, and how often it comes.

    Examples
    --------
    >>> from skebm.sentinels import find_sentinels
    >>> find_sentinels([31, 45, 999, 38, 52, 999, 27], "number")
    {'999': 2}
    """
    values, found = np.asarray(values, dtype=np.float64), {}
    values = values[np.isfinite(values)]
    # The lower end again at last: marks at the upper end may have hidden its gap.
    for sign in (1.0, -1.0, 1.0):
        distinct, counts = np.unique(sign * values, return_counts=True)
        marks = sign * distinct[: _n_apart(distinct, counts, sign, kind)]
        for mark, count in zip(marks, counts, strict=False):
            found[_text(mark, kind)] = int(count)
        values = values[~np.isin(values, marks)]
    return found


def _n_apart(distinct, counts, sign, kind):
    """Count the smallest values that are marks, repeated and apart from the rest."""
    pattern = _DATES if kind == "date" else _NUMBER
    n_marks = 0
    while (
        n_marks < min(4, len(distinct) - 2)
        and counts[n_marks] >= MIN_REPEATS
        and pattern.fullmatch(_text(sign * distinct[n_marks], kind))
    ):
        n_marks += 1
    for n in range(n_marks, 0, -1):
        others = distinct[n:]
        gap = others[0] - distinct[n - 1]
        near = np.diff(others[:N_NEAR]).max()
        middle = np.repeat(others, counts[n:])[counts[n:].sum() // 2] - others[0]
        if gap > GAP * near and (kind == "date" or gap > middle):
            return n
    return 0


def _text(value, kind):
    """Write a value as it would stand in a table."""
    if kind == "date":
        return str(np.datetime64(round(value), "s").astype("datetime64[D]"))
    return np.format_float_positional(value, trim="-")
