"""Values of a column in words, for the reasons that make a row strange."""

import numpy as np
import pandas as pd

from skebm.columns import as_plain
from skebm.sentinels import find_sentinels

RARE = 0.05


class ColumnValues:
    """The values of one column in words: what a row has, and what is typical.

    Parameters
    ----------
    column : Column
        The column's name and kind.
    values : Series of shape (n_samples,)
        The column.
    typical : Series of shape (n_typical,) or None, default=None
        Values of the column that say what is typical; None takes ``values``.

    Attributes
    ----------
    n_unread : int
        Cells that are not empty and yet no numbers, or no dates.
    low, high : float
        The 5% and 95% quantiles of a numeric column, NaN for a category.
    """

    def __init__(self, column, values, typical=None):
        self.name = plain_text(column.name, 60)
        self.kind = column.kind
        self.values = as_plain(values, column)
        self._missing = pd.isna(self.values)
        self.n_unread = int((self._missing & values.notna().to_numpy()).sum())
        typical = self.values if typical is None else as_plain(typical, column)
        self._shares = pd.Series(typical).value_counts(normalize=True, dropna=False)
        self._missing_share = pd.isna(typical).mean()
        self.low = self.high = np.nan
        if self.kind != "category":
            self.low, self.high = np.nanquantile(typical, [0.05, 0.95])

    def notes(self):
        """Say which cells were taken as missing, and which values may stand for it.

        Returns
        -------
        list of str
            Such as "`rent`: 11 of 7,043 cells are no numbers, taken as missing".
        """
        if self.kind == "category":
            return []
        notes, n_rows = [], len(self.values)
        if self.n_unread:
            are = f"is no {self.kind}" if self.n_unread == 1 else f"are no {self.kind}s"
            cells = f"{self.n_unread:,} of {n_rows:,} cells {are}"
            notes.append(f"`{self.name}`: {cells}, taken as missing")
        for text, count in find_sentinels(self.values, self.kind).items():
            cells = f"{count:,} of {n_rows:,} cells are {text}"
            notes.append(
                f"`{self.name}`: {cells}, far from the other values; if it stands for "
                "missing, replace it"
            )
        return notes

    def value_text(self, row):
        """Value of a row.

        Parameters
        ----------
        row : int
            Position of the row.

        Returns
        -------
        str
            The value, at most 40 characters.
        """
        return "missing" if self._missing[row] else self._text(self.values[row])

    def typical_text(self):
        """Values that are typical of the column.

        Returns
        -------
        str
            The range from the 5% to the 95% quantile, or the most frequent category.
        """
        if self.kind == "category":
            level, share = self._shares.index[0], self._shares.iloc[0]
            level = "missing" if pd.isna(level) else self._text(level)
            return f"most often {level} ({share:.0%})"
        return f"{self._text(self.low, 3)} to {self._text(self.high, 3)}"

    def verdict(self, row):
        """Where the value of a row lies among all values.

        Parameters
        ----------
        row : int
            Position of the row.

        Returns
        -------
        str
            "low", "high", "early", "late" or "rare"; "unusual combination" where the
            value alone is typical.
        """
        value = self.values[row]
        if self._missing[row]:
            return "rare" if self._missing_share < RARE else "unusual combination"
        if self.kind == "category":
            return (
                "rare" if self._shares.get(value, 0) < RARE else "unusual combination"
            )
        if value < self.low:
            return "early" if self.kind == "date" else "low"
        if value > self.high:
            return "late" if self.kind == "date" else "high"
        return "unusual combination"

    def reason(self, row):
        """Name, value and verdict of a row.

        Parameters
        ----------
        row : int
            Position of the row.

        Returns
        -------
        str
            Such as "mean area = 2501 (high)".
        """
        verb = "is" if self._missing[row] else "="
        return f"{self.name} {verb} {self.value_text(row)} ({self.verdict(row)})"

    def _text(self, value, digits=4):
        """Text of one value that is not missing."""
        if self.kind == "category":
            return plain_text(value, 40)
        if self.kind == "date":
            date = np.datetime64(round(value), "s")
            text = pd.Timestamp(date).isoformat(sep=" ")
            return text.removesuffix(" 00:00:00")
        return number_text(value, digits)


def number_text(value, digits=4):
    """Write a number with a few significant digits.

    Parameters
    ----------
    value : float
        The number.
    digits : int, default=4
        How many digits; those of a whole number up to ten million are all written.

    Returns
    -------
    str
        Without an exponent where the number is of ordinary size.

    Examples
    --------
    >>> from skebm.reasons import number_text
    >>> number_text(2501.0), number_text(0.0123456), number_text(1.5e12)
    ('2501', '0.01235', '1.5e+12')
    """
    if 1_000 <= abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def plain_text(value, length):
    """Text of a value in one printable line.

    Parameters
    ----------
    value : object
        The value.
    length : int
        Longer text is cut.

    Returns
    -------
    str
        At most ``length`` characters, none of them a control character.
    """
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return text if len(text) <= length else text[: length - 1] + "…"
