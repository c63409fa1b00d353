"""Sequences of rows: one table under another, and back to the form they came in."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from skebm._check import num_samples


class Layout(NamedTuple):
    """How sequences lie in one table, and the form that they came in.

    Attributes
    ----------
    form : {"rows", "stack", "list"}
        A table whose rows are sequences of length one, a 3-D array, or a list.
    lengths : ndarray of shape (n_sequences,)
        Rows of each sequence, in order.
    """

    form: str
    lengths: np.ndarray

    def restore(self, values):
        """Return one value per row in the form of the sequences.

        Parameters
        ----------
        values : ndarray of shape (n_rows, ...)
            What was found for each row.

        Returns
        -------
        ndarray or list of ndarray
            The same values.
        """
        if self.form == "rows":
            return values
        if self.form == "stack":
            return values.reshape(len(self.lengths), -1, *values.shape[1:])
        return np.split(values, np.cumsum(self.lengths)[:-1])

    def groups(self, size) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield sequences of like lengths together.

        Parameters
        ----------
        size : int
            Most sequences in a group.

        Yields
        ------
        members : ndarray of shape (m,)
            Places of the sequences.
        rows : ndarray of shape (m, longest)
            Places of their rows; the last one is repeated after the end.
        """
        starts = np.cumsum(self.lengths) - self.lengths
        order = np.argsort(self.lengths, kind="stable")
        for first in range(0, len(order), size):
            members = order[first : first + size]
            length = self.lengths[members, None]
            steps = np.arange(length[-1, 0])
            yield members, starts[members, None] + np.minimum(steps, length - 1)


def flattened(name, X):
    """Return all rows of the sequences as one table, and how they lie in it.

    Parameters
    ----------
    name : str
        Of the estimator, for messages.
    X : array-like
        A list of tables (length, n_features), a 3-D array, or a table.

    Returns
    -------
    table : array-like of shape (n_rows, n_features)
        Not validated, except that the sequences go together.
    layout : Layout
        Lengths and form.
    """
    tables = _listed(X)
    if tables is not None:
        _refuse_misfits(name, tables)
        lengths = np.array([len(table) for table in tables])
        return _refuse_holes(name, _stacked(tables), Layout("list", lengths))
    if getattr(X, "ndim", 0) == 3:
        X = np.asarray(X)
        n, length, width = X.shape
        if not length:
            raise ValueError(
                f"Got sequences of length 0: X has shape {X.shape}, but {name} wants "
                "(n_sequences, length, n_features) with a length of one or more."
            )
        layout = Layout("stack", np.full(n, length))
        return _refuse_holes(name, X.reshape(n * length, width), layout)
    return X, Layout("rows", np.ones(num_samples(X), dtype=int))


def flattened_labels(y, layout):
    """Return the labels of all rows, one under another.

    Parameters
    ----------
    y : array-like
        Labels in the form of the sequences.
    layout : Layout
        How the sequences lie.

    Returns
    -------
    array-like of shape (n_rows,)
        Not validated, except that every row has a label.
    """
    if layout.form == "rows" or y is None:
        return y
    if len(y) != len(layout.lengths):
        raise ValueError(
            f"Got {len(layout.lengths)} sequences in X but {len(y)} in y. Pass one "
            "array of labels per sequence."
        )
    parts = [np.asarray(part) for part in y]
    for i, (part, length) in enumerate(zip(parts, layout.lengths, strict=True)):
        if part.shape != (length,):
            raise ValueError(
                f"X[{i}] has {length} rows but y[{i}] has shape {part.shape}. Pass one "
                f"label per row: shape ({length},)."
            )
    if len({part.dtype.kind in "OU" for part in parts}) > 1:
        raise ValueError(
            "Got sequences with strings and sequences with numbers as labels. Pass "
            "labels of one kind, such as str(label)."
        )
    return np.concatenate(parts) if parts else y


def with_neighbors(rows, layout, reach):
    """Return each row with the rows around it, zeros where the sequence has none.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_features)
        All rows, scaled so that 0 is typical.
    layout : Layout
        How the sequences lie.
    reach : int
        Rows taken from either side, >= 0.

    Returns
    -------
    ndarray of shape (n_rows, (2 * reach + 1) * n_features)
        The earliest first.
    """
    sequence = np.repeat(np.arange(len(layout.lengths)), layout.lengths)
    place = np.arange(len(rows))
    parts = []
    for step in range(-reach, reach + 1):
        other = np.clip(place + step, 0, len(rows) - 1)
        inside = (sequence[other] == sequence) & (other == place + step)
        parts.append(np.where(inside[:, None], rows[other], 0.0))
    return np.hstack(parts)


def padded(rows, codes, members, places, layout):
    """Return a group of sequences as a `Chain` takes them.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, d)
        All rows.
    codes : Tensor of shape (n_rows,)
        Codes of their labels.
    members, places : ndarray
        Of `Layout.groups`.
    layout : Layout
        How the sequences lie.

    Returns
    -------
    Tensor of shape (m, longest, d + 1)
        The code last, -1 after the end.
    """
    index = torch.from_numpy(places).to(rows.device)
    length = torch.from_numpy(layout.lengths[members]).to(rows.device)
    ended = torch.arange(places.shape[1], device=rows.device) >= length[:, None]
    labels = codes[index].to(rows).masked_fill(ended, -1.0)
    return torch.cat([rows[index], labels[..., None]], 2)


def _listed(X):
    """Return the tables of a list of tables, None for anything else."""
    is_list = isinstance(X, list | tuple)
    kind = getattr(getattr(X, "dtype", None), "kind", None)
    is_objects = kind == "O" and X.ndim == 1
    if not (is_list or is_objects):
        return None
    X = list(X)
    if not X:
        raise ValueError("Got no sequences. Pass a list of one table or more.")
    if hasattr(X[0], "columns"):
        return X
    is_table = hasattr(X[0], "shape") and len({np.shape(part) for part in X}) > 1
    if is_table or _width(X[0]) is not None:
        return [np.asarray(table) for table in X]
    return None


def _width(table):
    """Return the columns of a table, None where it is none."""
    shape = np.shape(table)
    return shape[1] if len(shape) == 2 else None


def _refuse_misfits(name, tables):
    """Raise where a sequence is empty or has other columns than the first."""
    first = tables[0]
    for i, table in enumerate(tables):
        if _width(table) is None:
            raise ValueError(
                f"X[{i}] has shape {np.shape(table)}, but {name} wants sequences of "
                "shape (length, n_features). Reshape it: a row for each step."
            )
        if not len(table):
            raise ValueError(
                f"X[{i}] has 0 rows, but {name} wants sequences of one row or more. "
                "Leave it out."
            )
        if _width(table) != _width(first):
            raise ValueError(
                f"X[{i}] has {_width(table)} columns and X[0] has {_width(first)}, but "
                f"{name} wants the same columns in every sequence. Drop or add some."
            )
        if (_names(table) is None) != (_names(first) is None):
            raise ValueError(
                f"X[{i}] is of type {type(table).__name__} and X[0] of type "
                f"{type(first).__name__}. Pass all sequences as DataFrames, or none."
            )
        if _names(table) != _names(first):
            raise ValueError(
                f"X[{i}] has the columns {_names(table)} and X[0] has "
                f"{_names(first)}: feature names must be the same, in the same order. "
                f"Use X[{i}][list(X[0].columns)]."
            )


def _names(table):
    """Return the names of a DataFrame's columns, None for an array."""
    return list(table.columns) if hasattr(table, "columns") else None


def _stacked(tables):
    """Return tables one under another."""
    if not hasattr(tables[0], "columns"):
        return np.concatenate(tables)

    import pandas as pd

    return pd.concat(tables, ignore_index=True)


def _refuse_holes(name, table, layout):
    """Return the table and its layout; raise where a number is not finite."""
    values = np.asarray(table)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        i = int(np.searchsorted(np.cumsum(layout.lengths), row, side="right"))
        step = row - int(layout.lengths[:i].sum())
        what = "NaN" if np.isnan(values[row]).any() else "infinity"
        raise ValueError(
            f"X[{i}] contains {what} in row {step}, but {name} wants finite numbers. "
            "Impute it, or cut the sequence there."
        )
    return table, layout
