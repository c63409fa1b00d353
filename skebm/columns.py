"""Columns of a table as numbers for an estimator, and the way back to the columns."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skebm.cells import (
    SHARE_READ,
    Reading,
    find_reading,
    is_mark,
    may_hold_numbers,
    to_numbers,
)
from skebm.table import InputError

MAX_LEVELS = 25
MISSING = "(missing)"


@dataclass(frozen=True)
class Column:
    """A column of a table and how it is read.

    Parameters
    ----------
    name : str
        The column's name in the table.
    kind : {"number", "date", "category"}
        A date is encoded as seconds since 1970-01-01, a duration (a number) as seconds.
    reading : Reading or None, default=None
        How text is read as numbers; None where the column holds no text.
    """

    name: str
    kind: str
    reading: Reading | None = None


class TableEncoder:
    """Columns of a table as one numeric array, and the way back to the columns.

    Numbers have their missing values replaced by the median, with an indicator column;
    categories become one-hot columns, a missing value being a category of its own.
    Categories beyond the 24 most frequent share one column, and an unknown category is
    encoded as zeros. Columns that say nothing about how strange a row is are left out:
    no values, one value, rows numbered in order, and text that hardly repeats.

    Text is read as numbers if at least 95% of its cells are numbers, blank cells and
    marks such as "?" not counted; all other cells are then missing
    (`skebm.cells.find_reading` says what is a number). The same holds for dates of
    ISO 8601. A column of pandas' categorical type stays a category.

    Attributes
    ----------
    columns_ : list of Column
        The columns that are used.
    left_out_ : dict
        Name of each column that is not used -> why.
    origin_ : ndarray of shape (n_encoded,)
        For each encoded column, the position in ``columns_`` of the column behind it.

    Examples
    --------
    >>> import pandas as pd
    >>> from skebm.columns import TableEncoder
    >>> table = pd.DataFrame({"size": [1.0, None, 4.0, 5.0], "colour": list("rgrr")})
    >>> encoder = TableEncoder().fit(table)
    >>> encoder.transform(table)
    array([[1., 0., 0., 1.],
           [4., 1., 1., 0.],
           [4., 0., 0., 1.],
           [5., 0., 0., 1.]])
    >>> encoder.origin_
    array([0, 0, 1, 1])
    """

    def fit(self, table):
        """Choose the columns and learn their medians and categories.

        Parameters
        ----------
        table : DataFrame of shape (n_samples, n_columns)
            The table, without the columns to ignore.

        Returns
        -------
        TableEncoder
            The fitted encoder.

        Raises
        ------
        InputError
            If no column is left, or a column holds infinite values.
        """
        self.columns_, self.left_out_ = [], {}
        for name in table.columns:
            column, why = _read_column(table[name])
            if column:
                self.columns_.append(column)
            else:
                self.left_out_[name] = why
        if not self.columns_:
            reasons = "; ".join(f"{n}: {why}" for n, why in self.left_out_.items())
            raise InputError(f"no column can be used ({reasons or 'none is left'})")
        numbers, categories = self._blocks()
        self._encoder = ColumnTransformer(
            [
                ("number", _number_encoder(), numbers),
                ("category", _category_encoder(), categories),
            ]
        ).fit(self._prepare(table))
        self.origin_ = self._find_origin(numbers, categories)
        return self

    def transform(self, table):
        """Encode rows.

        Parameters
        ----------
        table : DataFrame of shape (n_samples, n_columns)
            Rows with at least the columns in ``columns_``.

        Returns
        -------
        ndarray of shape (n_samples, n_encoded)
            The numbers, float64 and finite.

        Raises
        ------
        InputError
            If a column is missing, holds infinite values, or holds no number or date
            where ``fit`` saw some.
        """
        for column in self.columns_:
            if column.name not in table.columns:
                raise InputError(f"the table has no column {column.name!r}")
        return self._encoder.transform(self._prepare(table)).astype(np.float64)

    def sum_to_columns(self, encoded):
        """Add up values of encoded columns that come from the same column.

        Parameters
        ----------
        encoded : array-like of shape (n_samples, n_encoded)
            One value per encoded column, such as contributions to the energy.

        Returns
        -------
        ndarray of shape (n_samples, n_columns)
            One value per column in ``columns_``; the row totals are the same.
        """
        encoded = np.asarray(encoded, dtype=np.float64)
        total = np.zeros((len(encoded), len(self.columns_)))
        np.add.at(total.T, self.origin_, encoded.T)
        return total

    def _blocks(self):
        """Positions of the numeric columns (dates included) and of the categories."""
        is_category = [column.kind == "category" for column in self.columns_]
        return list(np.flatnonzero(np.invert(is_category))), list(
            np.flatnonzero(is_category)
        )

    def _prepare(self, table):
        """Floats and strings only, under the names "0", "1", ... of ``columns_``."""
        return pd.DataFrame(
            {
                str(i): as_plain(table[column.name], column)
                for i, column in enumerate(self.columns_)
            }
        )

    def _find_origin(self, numbers, categories):
        """Positions in ``columns_``, in the order of the encoded columns."""
        origin = list(numbers)
        if numbers:
            indicator = self._encoder.named_transformers_["number"].indicator_
            origin += [numbers[j] for j in indicator.features_]
        if categories:
            one_hot = self._encoder.named_transformers_["category"][-1]
            names = one_hot.get_feature_names_out([str(i) for i in categories])
            origin += [int(name) for name in names]
        return np.asarray(origin, dtype=np.intp)


def _number_encoder():
    """Median for a missing number, and a column that says so."""
    return SimpleImputer(strategy="median", add_indicator=True)


def _category_encoder():
    """One column per frequent category."""
    return make_pipeline(
        SimpleImputer(strategy="constant", fill_value=MISSING),
        OneHotEncoder(
            handle_unknown="ignore",
            sparse_output=False,
            max_categories=MAX_LEVELS,
            feature_name_combiner=_feature_only,
        ),
    )


def _feature_only(feature, category):
    """Name of a one-hot column: the column it comes from."""
    return str(feature)


def as_plain(values, column):
    """Values of a column as floats with NaN, or as strings with NaN.

    Parameters
    ----------
    values : Series of shape (n_samples,)
        The column.
    column : Column
        How to read it.

    Returns
    -------
    ndarray of shape (n_samples,)
        Float64, or object for a category.

    Raises
    ------
    InputError
        If a column of numbers or dates holds infinite values, or none of its kind.
    """
    if column.kind == "category":
        return _as_levels(values)
    read = _as_seconds if column.kind == "date" else _as_floats
    plain = read(values, column)
    if np.isinf(plain).any():
        raise InputError(
            f"column {column.name!r} holds infinite values; replace them with numbers "
            "or with empty cells, or leave the column out with --ignore"
        )
    if np.isnan(plain).all():
        _refuse_other_kind(values, column)
    return plain


def _as_levels(values):
    """Strings, NaN where a cell is missing or blank; 1.0 and 1 are the same level."""
    cells = values.to_numpy(dtype=object, na_value=np.nan)
    whole = [isinstance(c, float | np.floating) and c == np.floor(c) for c in cells]
    text = np.array([str(c) for c in cells], dtype=object)
    text[whole] = [f"{c:.0f}" for c in cells[whole]]
    missing = values.isna().to_numpy() | np.array([not t.strip() for t in text], bool)
    text[missing] = np.nan
    return text


def _as_floats(values, column):
    """Numbers, NaN where a cell is missing or no number."""
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype) or may_hold_numbers(values):
        return to_numbers(values, column.reading)
    if types.is_timedelta64_dtype(dtype):
        values = values.dt.total_seconds()
    elif types.is_datetime64_any_dtype(dtype):
        return np.full(len(values), np.nan)
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def _as_seconds(values, column):
    """Seconds since 1970-01-01, NaN where a cell is missing or no date."""
    if types.is_numeric_dtype(values.dtype):
        return np.full(len(values), np.nan)
    dates = _as_dates(values, errors="coerce").to_numpy(dtype="datetime64[us]")
    return (dates - np.datetime64(0, "us")) / np.timedelta64(1, "s")


def _refuse_other_kind(values, column):
    """Refuse a column of which no cell is of the kind that ``fit`` saw."""
    others = [cell for cell in values.dropna() if not is_mark(cell)]
    if others:
        cell = " ".join(str(others[0]).split())[:40]
        raise InputError(
            f"column {column.name!r} holds {column.kind}s in the rows of fit, but none "
            f"here (got {cell!r}); write it the same way in both tables"
        )


def _as_dates(values, errors="raise"):
    """Timestamps in UTC from dates, times or ISO 8601 text."""
    is_text = types.is_object_dtype(values.dtype) or types.is_string_dtype(values.dtype)
    form = "ISO8601" if is_text else None
    return pd.to_datetime(values, utc=True, format=form, errors=errors)


def _read_column(values):
    """Return a column and None, or None and the reason to leave it out."""
    known = values.dropna()
    if known.empty:
        return None, "no values"
    column = _find_column(values.name, known)
    if column is None:
        return None, f"values of type {known.dtype} are not supported"
    plain = as_plain(known, column)
    n_distinct = pd.unique(plain).size
    if n_distinct == 1 and len(known) == len(values):
        return None, "one value in every row"
    if column.kind == "category":
        if n_distinct > max(MAX_LEVELS, len(known) / 2) or n_distinct == len(values):
            return None, f"text that hardly repeats ({n_distinct} different values)"
    elif _numbers_rows(values, column, plain):
        return None, "numbers the rows in order"
    return column, None


def _find_column(name, known):
    """Column of values of which none is missing; None if they cannot be used."""
    dtype = known.dtype
    if types.is_bool_dtype(dtype) or isinstance(dtype, pd.CategoricalDtype):
        return Column(name, "category")
    if types.is_complex_dtype(dtype):
        return None
    if types.is_numeric_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        return Column(name, "number")
    if types.is_datetime64_any_dtype(dtype):
        return Column(name, "date")
    reading = find_reading(known)
    if reading is not None:
        return Column(name, "number", reading)
    return Column(name, "date" if _holds_dates(known) else "category")


def _holds_dates(known):
    """Whether an object column holds dates, or nearly always text of ISO 8601."""
    known = known[[not is_mark(cell) for cell in known]]
    inferred = types.infer_dtype(known, skipna=True)
    if inferred in ("date", "datetime", "datetime64"):
        return True
    if inferred != "string":
        return False
    is_date = known.str.match(r"\d{4}-\d{2}-\d{2}").to_numpy(dtype=bool)
    is_read = is_date & _as_dates(known, errors="coerce").notna().to_numpy()
    return bool(is_read.mean() >= SHARE_READ - 1e-9)


def _numbers_rows(values, column, plain):
    """Whether a column counts 0, 1, 2, ... down the table."""
    if not types.is_integer_dtype(values.dtype) and column.reading is None:
        return False
    start = plain - np.arange(len(plain))
    start = start[np.isfinite(start)]
    return len(plain) == len(values) > 2 and bool((start == start[0]).all())
