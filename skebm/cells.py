"""Cells of text as numbers, with separators, currencies and percent."""

import re
from collections import Counter
from dataclasses import dataclass
from numbers import Number
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

SHARE_READ = 0.95
"""Least share of numbers (or dates) among the cells that say something."""

_MARKS = (
    "? ?? - -- --- \u2013 \u2014 . .. ... * / n/a na n.a n.a. #n/a <na> nan none null "
    "nil n.d. unknown unk missing unavailable undefined tbd "
    "#value! #div/0! #ref! #null! #num!"
)
MISSING_MARKS = frozenset(_MARKS.split()) | {"not available", "not applicable"}
"""Texts that stand for a missing value, in lower case."""

_CODES = (
    "USD|EUR|GBP|CHF|JPY|CNY|RMB|RUB|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RON|BGN|"
    "TRY|UAH|BRL|MXN|ARS|CLP|COP|PEN|ZAR|NGN|KES|EGP|AED|SAR|ILS|KRW|SGD|HKD|TWD|THB|"
    "MYR|IDR|PHP|VND|PKR|BDT"
)
_SAME = {"$": "USD", "US$": "USD", "€": "EUR", "£": "GBP"}
_SHORT = r"kr\b\.?|Fr\b\.?|Rs\b\.?|zł|Kč|Ft\b"
_CURRENCY = rf"(?:[A-Z]{{1,3}}\$|[$¢£¤¥֏฿₠-₿﷼]|(?:{_CODES})(?![A-Z])|{_SHORT})"
_SIGN = "[+\\-\u2212\u2013]"
_CELL = re.compile(
    rf"""(?P<open>\()?
    (?P<before>{_SIGN})?\s*(?P<front>{_CURRENCY})?\s*(?P<inside>{_SIGN})?\s*
    (?P<digits>[.,]?[0-9](?:[0-9.,'\u2019\s]*[0-9])?[.,]?(?:[eE][+-]?[0-9]+)?)
    \s*(?P<behind>{_CURRENCY}|%)?(?P<close>\))?""",
    re.VERBOSE,
)
_SPACE = r"[ \u00a0\u2009\u202f'\u2019]"


def _number_pattern(decimal, grouping):
    """Pattern of the numbers with one decimal mark; groups do not start with 0."""
    grouped = rf"[1-9][0-9]{{0,2}}(?P<mark>{grouping}|{_SPACE})[0-9]{{3}}"
    grouped = rf"{grouped}(?:(?P=mark)[0-9]{{3}})*"
    lakhs = "|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}" if grouping == "," else ""
    whole = rf"(?:{grouped}{lakhs}|[0-9]+)(?:{decimal}[0-9]*)?"
    return re.compile(rf"(?:{whole}|{decimal}[0-9]+)(?:[eE][+-]?[0-9]+)?")


_NUMBERS = {".": _number_pattern(r"\.", ","), ",": _number_pattern(",", r"\.")}


@dataclass(frozen=True)
class Reading:
    """How the cells of a column of text are read as numbers.

    Parameters
    ----------
    decimal : {".", ","} or None
        The decimal mark; None where no cell tells.
    unit : str or None
        The currency or "%" of the column; numbers of another unit are no numbers.
    """

    decimal: str | None = None
    unit: str | None = None


class _Written(NamedTuple):
    """A text that may be a number: its sign, digits and unit."""

    sign: str
    digits: str
    unit: str | None


def may_hold_numbers(values):
    """Return whether a column holds objects or text, of which some may be numbers.

    Parameters
    ----------
    values : Series of shape (n_samples,)
        The column.

    Returns
    -------
    bool
        False for numbers, dates, booleans and categories: their type says what they
        are.
    """
    return types.is_object_dtype(values.dtype) or isinstance(
        values.dtype, pd.StringDtype
    )


def find_reading(values):
    """Find how a column of text is read as numbers.

    A column is numeric if at least 95% of its cells are numbers, blank cells and marks
    such as "?", "n/a" or "unknown" not counted. Of the two decimal marks, the one with
    which more cells are numbers is the column's; thousands are separated by the other
    one, a space or an apostrophe. So "12,5" and "1.234,50" make the comma decimal.
    Where all cells fit both ("1,571" and "2,045", or "1.571" and "2.045"), the point
    is decimal. Percent stay percent: "12%" is 12. Digits that are codes are no
    numbers: those of one length of which some start with 0 or have spaces, and long
    ones behind a "+".

    Parameters
    ----------
    values : Series of shape (n_samples,)
        Objects or text.

    Returns
    -------
    Reading or None
        None if the column is not numeric.

    Examples
    --------
    >>> import pandas as pd
    >>> from skebm.cells import find_reading
    >>> find_reading(pd.Series(["1.234,50 EUR", "?", "12,5 EUR"]))
    Reading(decimal=',', unit='EUR')
    """
    cells = values.dropna().to_numpy(dtype=object)
    n_numbers, n_texts = sum(map(_is_number, cells)), _count_texts(cells)
    says_something = {t: n for t, n in n_texts.items() if not is_mark(t)}
    n_cells = len(cells) - n_texts.total() + sum(says_something.values())
    written = {t: w for t in says_something if (w := _split(t))}
    reading = _complete(Reading(), written, says_something)
    numbers = {t: w for t, w in written.items() if _value(w, reading) is not None}
    n_numbers += sum(says_something[t] for t in numbers)
    if n_numbers == 0 or n_numbers < SHARE_READ * n_cells - 1e-9:
        return None
    return None if _are_codes(numbers.values()) else reading


def to_numbers(values, reading=None):
    """Read a column of text as numbers.

    Parameters
    ----------
    values : Series of shape (n_samples,)
        Objects or text.
    reading : Reading or None, default=None
        How to read it; what it leaves open is found from the cells.

    Returns
    -------
    ndarray of shape (n_samples,)
        Float64; NaN for missing cells and for cells that are no numbers.

    Examples
    --------
    >>> import pandas as pd
    >>> from skebm.cells import to_numbers
    >>> to_numbers(pd.Series(["$1,571.00", "(12)", "?", 3]))
    array([1571.,  -12.,   nan,    3.])
    """
    cells = values.to_numpy(dtype=object, na_value=np.nan)
    n_texts = _count_texts(cells)
    written = {t: w for t in n_texts if (w := _split(t))}
    reading = _complete(reading or Reading(), written, n_texts)
    known = {t: _value(w, reading) for t, w in written.items()}
    numbers = [
        float(c) if _is_number(c) else known.get(c) if isinstance(c, str) else None
        for c in cells
    ]
    return np.asarray(numbers, dtype=np.float64)


def is_mark(cell):
    """Return whether a cell is blank text, or text that stands for a missing value.

    Parameters
    ----------
    cell : object
        The cell.

    Returns
    -------
    bool
        True for texts such as " ", "?", "n/a" or "unknown".
    """
    if not isinstance(cell, str):
        return False
    text = cell.strip().casefold()
    return not text or text in MISSING_MARKS


def _count_texts(cells):
    """Count how often each text comes."""
    return Counter(cell for cell in cells if isinstance(cell, str))


def _is_number(cell):
    """Whether a cell is a real number of Python or numpy, no boolean."""
    is_other = isinstance(cell, bool | np.bool_ | complex | np.complexfloating)
    return isinstance(cell, Number) and not is_other


def _split(text):
    """Sign, digits and unit of a text, or None if it is no number."""
    found = _CELL.fullmatch(text.strip())
    if found is None or bool(found["open"]) != bool(found["close"]):
        return None
    signs = [found[name] for name in ("open", "before", "inside") if found[name]]
    units = [found[name] for name in ("front", "behind") if found[name]]
    if len(signs) > 1 or len(units) > 1:
        return None
    unit = _SAME.get(units[0], units[0]) if units else None
    return _Written("".join(signs), found["digits"], unit)


def _complete(reading, written, n_texts):
    """Return the reading with what it leaves open chosen: most texts are numbers."""
    decimal, unit = reading.decimal, reading.unit
    if unit is None:
        units = Counter()
        for text, parts in written.items():
            units[parts.unit] += n_texts[text]
        del units[None]
        unit = units.most_common(1)[0][0] if units else None
    if decimal is None:
        fits = Counter()
        for text, parts in written.items():
            if not parts.digits.isdigit():
                for mark, pattern in _NUMBERS.items():
                    fits[mark] += n_texts[text] * bool(pattern.fullmatch(parts.digits))
        if fits["."] != fits[","]:
            decimal = max(fits, key=fits.__getitem__)
    return Reading(decimal, unit)


def _value(parts, reading):
    """Return the number of a split text under a reading, or None."""
    decimal = reading.decimal or "."
    if parts.unit not in (None, reading.unit):
        return None
    if not _NUMBERS[decimal].fullmatch(parts.digits):
        return None
    group = "." if decimal == "," else ","
    digits = re.sub(_SPACE, "", parts.digits.replace(group, ""))
    number = float(digits.replace(",", "."))
    return number if parts.sign in ("", "+") else -number


def _are_codes(numbers):
    """Whether split texts are digits that name something, such as postcodes."""
    digits = [re.sub(_SPACE, "", parts.digits) for parts in numbers]
    if not digits or not all(d.isdigit() for d in digits):
        return False
    width, n_equal = Counter(map(len, digits)).most_common(1)[0]
    fixed = n_equal >= SHARE_READ * len(digits)
    padded = any(d[0] == "0" and len(d) == width > 1 for d in digits)
    spaced = width >= 7 and any(" " in parts.digits for parts in numbers)
    dialled = any(
        p.sign == "+" and len(d) >= 8 for p, d in zip(numbers, digits, strict=True)
    )
    return dialled or (fixed and (padded or spaced))
