"""Columns of a table as values of units, and back: bits, codes, scaled numbers."""

from itertools import groupby
from numbers import Integral, Number
from typing import NamedTuple

import numpy as np

from skebm._check import check_cells, check_names
from skebm.energies import BernoulliUnits, CategoricalUnits, GaussianUnits, MixedUnits
from skebm.estimators.scaling import column_location_and_scale, scaled
from skebm.exceptions import DataDomainError

KINDS = "binary", "categorical", "real"

MOST_CODES = 10
"""Distinct integers of a column up to which they are codes."""

LEAST_VARIANCE = 1e-3
"""Floor on the variance of a real column given the hidden bits, as a share of its."""


class Cells(NamedTuple):
    """The entries of one column, and what they are.

    Attributes
    ----------
    name : str or int
        Name or place of the column.
    values : ndarray of shape (n_samples,)
        Float64 with NaN where missing, or objects with None.
    known : ndarray of shape (n_samples,), bool
        Which entries are there.
    form : {"bool", "int", "float", "text", "category"}
        Numbers, unless "text" or "category".
    dtype : dtype or None
        That of a DataFrame's column.
    """

    name: object
    values: np.ndarray
    known: np.ndarray
    form: str
    dtype: object

    @property
    def is_number(self):
        """Whether the entries are numbers.

        Returns
        -------
        object
            Whether the entries are numbers.
        """
        return self.form in ("bool", "int", "float")


def cells_of(estimator, X, *, reset):
    """Return the columns of X.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and ``feature_names_in_`` are set or compared.
    X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
        Rows; None, NaN and pandas' missing values are missing.
    reset : bool
        True in ``fit``.

    Returns
    -------
    list of Cells
        One per column.
    """
    if not hasattr(X, "iloc"):
        rows = check_cells(estimator, X, reset=reset)
        return [_plain(j, rows[:, j], None) for j in range(rows.shape[1])]
    if 0 in X.shape:
        axis, what = ("sample", X.shape[0]) if not len(X) else ("feature", X.shape[1])
        raise ValueError(
            f"Found array with {what} {axis}(s) (shape={X.shape}) while a minimum of 1 "
            f"is required by {type(estimator).__name__}."
        )
    check_names(estimator, X, reset=reset)
    return [_of_series(name, X.iloc[:, j]) for j, name in enumerate(X.columns)]


def _of_series(name, series):
    """Return a column of a DataFrame."""
    from pandas.api import types

    dtype = series.dtype
    if isinstance(dtype.type, type) and issubclass(dtype.type, np.complexfloating):
        raise ValueError(f"Complex data not supported: column {name!r}.")
    if types.is_numeric_dtype(dtype):  # bool among them
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        whole = types.is_integer_dtype(dtype)
        form = "bool" if types.is_bool_dtype(dtype) else "int" if whole else "float"
        return Cells(name, values, ~np.isnan(values), form, dtype)
    if types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        raise DataDomainError(
            f"Column {name!r} holds {dtype}, but expected numbers, booleans, text or "
            "categories. Turn times into numbers first."
        )
    values = series.astype(object).to_numpy()
    values = np.where(series.isna().to_numpy(), None, values)
    if types.CategoricalDtype.is_dtype(dtype):
        known = np.not_equal(values, None)
        return Cells(name, values, known, "category", dtype)
    return _plain(name, values, dtype)


def _plain(name, values, dtype):
    """Return a column of an array of any type."""
    if values.dtype.kind in "biuf":
        wide = values.astype(np.float64)
        form = {"b": "bool", "f": "float"}.get(values.dtype.kind, "int")
        return Cells(name, wide, ~np.isnan(wide), form, dtype)
    cells = values.astype(object)
    known = np.array([v is not None and v == v for v in cells], bool)
    some = cells[known].tolist()
    if some and all(isinstance(v, Number) for v in some):
        wide = np.full(len(cells), np.nan)
        wide[known] = some
        whole = all(isinstance(v, Integral) for v in some)
        is_bit = all(isinstance(v, bool | np.bool_) for v in some)
        return Cells(
            name, wide, known, "bool" if is_bit else "int" if whole else "float", dtype
        )
    return Cells(name, np.where(known, cells, None), known, "text", dtype)


def usual_kind(cells):
    """Return the kind that the entries of a column suggest.

    Parameters
    ----------
    cells : Cells
        The column.

    Returns
    -------
    {"binary", "categorical", "real"}
        Two values that repeat make bits; text, categories and up to 10 distinct
        integers make codes.
    """
    if cells.form == "bool":
        return "binary"
    if not cells.is_number:
        return "binary" if len(_levels(cells)) == 2 else "categorical"
    values = cells.values[cells.known]
    n_distinct = len(np.unique(values))
    if n_distinct == 2 and len(values) > 2:
        return "binary"
    whole = cells.form == "int" and n_distinct < len(values)
    return "categorical" if whole and 2 < n_distinct <= MOST_CODES else "real"


class RealColumn:
    """A column of numbers, scaled to mean 0 and standard deviation 1.

    Parameters
    ----------
    cells : Cells
        Training entries.
    """

    kind = "real"
    categories = None

    def __init__(self, cells):
        self.name = cells.name
        values = self._numbers(cells)
        location, scale = column_location_and_scale(values[:, None])
        self.location, self.scale = float(location[0]), float(scale[0])

    def encode(self, cells, handle_unknown):
        """Return scaled numbers, NaN where missing.

        Parameters
        ----------
        cells : Cells
            Entries.
        handle_unknown : str
            Unused: any number is known.

        Returns
        -------
        ndarray of shape (n_samples,)
            In float64.
        """
        return scaled(self._numbers(cells), self.location, self.scale)

    def decode(self, values):
        """Return numbers in the units of the table.

        Parameters
        ----------
        values : ndarray of shape (n_samples,)
            Scaled numbers.

        Returns
        -------
        ndarray of shape (n_samples,)
            In float64.
        """
        return values * self.scale + self.location

    def rescaled(self, values):
        """Scale the column anew by scaled numbers of other weights.

        Parameters
        ----------
        values : ndarray of shape (n_samples,)
            Scaled numbers, as often as they count; NaN is missing.

        Returns
        -------
        ndarray of shape (n_samples,)
            Of mean 0 and standard deviation 1.
        """
        (location,), (scale,) = column_location_and_scale(values[:, None])
        self.location += float(location) * self.scale
        self.scale *= float(scale)
        return scaled(values, location, scale)

    def _numbers(self, cells):
        """Return the entries as finite numbers or NaN."""
        if not cells.is_number:
            try:
                values = np.where(cells.known, cells.values, np.nan).astype(np.float64)
            except (ValueError, TypeError) as error:
                raise DataDomainError(
                    f"Column {cells.name!r} is real, but {error}. Pass numbers, or "
                    "make it categorical."
                ) from None
        else:
            values = cells.values
        if np.isinf(values).any():
            raise ValueError(
                f"Input X contains infinity or a value too large for dtype('float64') "
                f"in column {cells.name!r}."
            )
        return values


class LevelColumn:
    """A column of categories as codes 0, 1, ...; two of them may be a bit.

    Parameters
    ----------
    cells : Cells
        Training entries.
    kind : {"binary", "categorical"}
        Which units it takes.
    """

    location, scale = 0.0, 1.0

    def __init__(self, cells, kind):
        self.name, self.kind, self.dtype = cells.name, kind, cells.dtype
        self.categories = _levels(cells)
        if kind == "binary":
            if cells.form == "bool":
                self.categories = np.array([False, True])
            if len(self.categories) > 2:
                raise DataDomainError(
                    f"Column {cells.name!r} is binary, but has "
                    f"{len(self.categories)} values. Make it categorical or real."
                )
        self._codes = {v: code for code, v in enumerate(self.categories.tolist())}

    def encode(self, cells, handle_unknown):
        """Return codes, NaN where missing.

        Parameters
        ----------
        cells : Cells
            Entries.
        handle_unknown : {"error", "missing"}
            What categories that ``fit`` did not see are.

        Returns
        -------
        ndarray of shape (n_samples,)
            In float64.
        """
        codes = np.full(len(cells.values), np.nan)
        known = cells.values[cells.known].tolist()
        codes[cells.known] = [self._codes.get(v, np.nan) for v in known]
        unseen = cells.known & np.isnan(codes)
        if handle_unknown == "error" and unseen.any():
            found = sorted(set(map(str, cells.values[unseen])))[:5]
            raise DataDomainError(
                f"Column {self.name!r} holds {', '.join(found)}, unseen in fit; it "
                f"has {len(self.categories)} categories. Pass "
                'handle_unknown="missing", or fit on rows that have them.'
            )
        return codes

    def decode(self, values):
        """Return categories in the type of the table.

        Parameters
        ----------
        values : ndarray of shape (n_samples,)
            Codes, or probabilities of a bit.

        Returns
        -------
        ndarray or Series of shape (n_samples,)
            The likelier bit, the code's category.
        """
        codes = values.round().clip(0, len(self.categories) - 1).astype(np.intp)
        found = self.categories[codes]
        if self.dtype is None:
            return found

        import pandas as pd

        return pd.Series(found).astype(self.dtype)


def _levels(cells):
    """Return the categories of a column, in order."""
    if cells.form == "category":
        return np.array(list(cells.dtype.categories), dtype=object)
    some = cells.values[cells.known]
    if cells.is_number:
        as_type = {"bool": bool, "int": np.int64, "float": np.float64}[cells.form]
        return np.unique(some).astype(as_type)
    try:
        return np.array(sorted(set(some.tolist()), key=_order), dtype=object)
    except TypeError:
        raise TypeError(
            f"Column {cells.name!r} holds entries without a hash; an argument must be "
            "a string or a real number."
        ) from None


def _order(value):
    """Return what categories of any type are sorted by."""
    return str(type(value)), value if isinstance(value, str) else str(value)


def units_of(columns):
    """Return the units of columns, neighbours of one kind together.

    Parameters
    ----------
    columns : list of RealColumn or LevelColumn
        In the order of the table.

    Returns
    -------
    Units
        Unbuilt.
    """
    parts = []
    for kind, group in groupby(columns, key=lambda column: column.kind):
        run = list(group)
        if kind == "real":
            units = GaussianUnits(LEAST_VARIANCE)
        elif kind == "binary":
            units = BernoulliUnits()
        else:
            # One category leaves a second code that no row has.
            units = CategoricalUnits([max(2, len(c.categories)) for c in run])
        parts.append((units, len(run)))
    return parts[0][0] if len(parts) == 1 else MixedUnits(parts)
