"""Columns of a table as numbers for an estimator, and the way back to the columns."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api import types
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

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
    """

    name: str
    kind: str


class TableEncoder:
    """Columns of a table as one numeric array, and the way back to the columns.

    Numbers have their missing values replaced by the median, with an indicator column;
    categories become one-hot columns, a missing value being a category of its own.
    Categories beyond the 24 most frequent share one column, and an unknown category is
    encoded as zeros. Columns that say nothing about how strange a row is are left out:
    no values, one value, rows numbered in order, and text that hardly repeats.

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
            kind, why = _kind(table[name])
            if kind:
                self.columns_.append(Column(name, kind))
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
        """
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
                str(i): as_plain(table[c.name], c.kind)
                for i, c in enumerate(self.columns_)
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


def as_plain(values, kind):
    """Values of a column as floats with NaN, or as strings with NaN.

    Parameters
    ----------
    values : Series of shape (n_samples,)
        The column.
    kind : {"number", "date", "category"}
        How to read it, see `Column`.

    Returns
    -------
    ndarray of shape (n_samples,)
        Float64, or object for a category.
    """
    if kind == "number":
        if types.is_timedelta64_dtype(values.dtype):
            values = values.dt.total_seconds()
        elif types.is_object_dtype(values.dtype):
            values = pd.to_numeric(values)
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    if kind == "date":
        since = _as_dates(values) - pd.Timestamp(0, tz="UTC")
        return since.dt.total_seconds().to_numpy(dtype=np.float64)
    text = values.astype(object).map(str).to_numpy(dtype=object)
    text[values.isna().to_numpy()] = np.nan
    return text


def _as_dates(values, errors="raise"):
    """Timestamps in UTC from dates, times or ISO 8601 text."""
    is_text = types.is_object_dtype(values.dtype) or types.is_string_dtype(values.dtype)
    form = "ISO8601" if is_text else None
    return pd.to_datetime(values, utc=True, format=form, errors=errors)


def _kind(values):
    """Kind of a column, or None and the reason to leave it out."""
    known = values.dropna()
    if known.empty:
        return None, "no values"
    kind = _value_kind(known)
    if kind is None:
        return None, f"values of type {known.dtype} are not supported"
    plain = as_plain(known, kind)
    n_distinct = pd.unique(plain).size
    if n_distinct == 1 and len(known) == len(values):
        return None, "one value in every row"
    if kind == "category":
        if n_distinct > max(MAX_LEVELS, len(known) / 2) or n_distinct == len(values):
            return None, f"text that hardly repeats ({n_distinct} different values)"
        return kind, None
    if np.isinf(plain).any():
        raise InputError(
            f"column {values.name!r} holds infinite values; replace them with numbers "
            "or with empty cells, or leave the column out with --ignore"
        )
    if _numbers_rows(values, plain):
        return None, "numbers the rows in order"
    return kind, None


def _value_kind(known):
    """Kind of values of which none is missing; None if they cannot be used."""
    dtype = known.dtype
    if types.is_bool_dtype(dtype) or isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if types.is_complex_dtype(dtype):
        return None
    if types.is_numeric_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        return "number"
    if types.is_datetime64_any_dtype(dtype):
        return "date"
    inferred = types.infer_dtype(known, skipna=True)
    if inferred in ("decimal", "floating", "integer", "mixed-integer-float"):
        return "number"
    return "date" if _holds_dates(known, inferred) else "category"


def _holds_dates(known, inferred):
    """Whether an object column holds dates, or text that always reads as ISO 8601."""
    if inferred in ("date", "datetime", "datetime64"):
        return True
    if inferred != "string" or not known.str.match(r"\d{4}-\d{2}-\d{2}").all():
        return False
    return bool(_as_dates(known, errors="coerce").notna().all())


def _numbers_rows(values, plain):
    """Whether a column counts 0, 1, 2, ... down the table."""
    return (
        types.is_integer_dtype(values.dtype)
        and len(plain) == len(values) > 2
        and bool((np.diff(plain) == 1).all())
    )
