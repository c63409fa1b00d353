"""RBMs whose columns are bits, codes and numbers, in and out as the table has them."""

from abc import abstractmethod

import numpy as np

from skebm._check import StrOptions
from skebm.estimators.kinds import Cells, cells_of, units_of
from skebm.estimators.rbm_tables import TableRBM
from skebm.estimators.scaling import place_of, warn_of_denormals
from skebm.exceptions import DataDomainError


class KindRBM(TableRBM):
    """An RBM of columns of several kinds.

    A subclass has the parameter ``handle_unknown`` and makes the columns in `_learn`.
    """

    _parameter_constraints: dict = {
        **TableRBM._parameter_constraints,
        "handle_unknown": [StrOptions({"error", "missing"})],
    }

    @abstractmethod
    def _learn(self, cells):
        """Return the columns as their training entries make them."""

    @property
    def categories_(self):
        """Categories of every column in the order of their codes; None if real.

        Returns
        -------
        object
            Categories of every column in the order of their codes; None if real.
        """
        return [column.categories for column in self._columns]

    def _encode(self, X, *, reset):
        """Return X in the values of the units, shape (n, d), NaN where missing."""
        cells = cells_of(self, X, reset=reset)
        if reset:
            empty = [c.name for c in cells if not c.known.any()]
            if empty:
                raise ValueError(
                    f"Columns {empty} of X hold nothing but NaN. Drop them, or pass "
                    "rows that have a value there."
                )
            self._columns = self._learn(cells)
            self._names = X.columns if hasattr(X, "iloc") else None
            self._warn(cells)
        pairs = zip(self._columns, cells, strict=True)
        try:
            return np.column_stack([c.encode(x, self.handle_unknown) for c, x in pairs])
        except DataDomainError as error:
            raise DataDomainError(f"{type(self).__name__}: {error}") from None

    def _warn(self, cells):
        """Warn about real columns that vary by denormal numbers."""
        kinds = [column.kind for column in self._columns]
        places = np.flatnonzero(np.array(kinds) == "real")
        if len(places):
            rows = np.column_stack([cells[j].values for j in places]).astype(np.float64)
            warn_of_denormals(rows, places)

    def _decode(self, rows):
        """Return rows of the units' values as rows like those of ``fit``."""
        pairs = zip(self._columns, rows.T, strict=True)
        found = [column.decode(values) for column, values in pairs]
        if self._names is None:
            is_object = any(values.dtype == object for values in found)
            return np.column_stack(
                [v.astype(object) for v in found] if is_object else found
            )

        import pandas as pd

        series = [pd.Series(values) for values in found]
        return pd.concat(series, axis=1).set_axis(self._names, axis=1)

    def _units(self, rows):
        """Return the units of the columns."""
        return units_of(self._columns)

    def _log_scales(self):
        """Return the log of every column's scale, 0 where it is not real."""
        return np.log([column.scale for column in self._columns])

    def _given_row(self, given):
        """Return one encoded row with the given values, NaN elsewhere, shape (1, d)."""
        names = getattr(self, "feature_names_in_", None)
        row = np.full((1, self.n_features_in_), np.nan)
        for key, value in given.items():
            if value is None or value != value:
                raise ValueError(f"Got given={given!r}, but expected no missing value.")
            place = place_of(key, names, self.n_features_in_)
            column = self._columns[place]
            form = "float" if column.kind == "real" else "text"
            values = np.array([value], dtype=object if form == "text" else np.float64)
            cells = Cells(column.name, values, np.array([True]), form, None)
            row[0, place] = column.encode(cells, "error")[0]
        if not np.isnan(row).any():
            raise ValueError(
                f"Got given={given!r}, but expected values for some of the "
                f"{self.n_features_in_} columns. Leave at least one column out."
            )
        return row

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags
