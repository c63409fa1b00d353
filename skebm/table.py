"""Tables in and out: CSV and Parquet files, written whole or not at all."""

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from skebm.exceptions import SkebmError

SUFFIXES = (".csv", ".parquet")


class InputError(SkebmError, ValueError):
    """A table, column or setting that the job cannot use."""


def read_table(path):
    """Read a CSV or Parquet file.

    Parameters
    ----------
    path : str or Path
        A file that ends in ``.csv`` (comma-separated, with a header, UTF-8) or
        ``.parquet``.

    Returns
    -------
    DataFrame of shape (n_samples, n_columns)
        The table, its column names as text.

    Raises
    ------
    InputError
        If the file is missing, cannot be read, or has fewer than two rows, no column
        or two columns of the same name.
    """
    path = Path(path)
    check_suffix(path)
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    try:
        table = (
            _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
        )
    except InputError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())
        raise InputError(f"cannot read {path}: {message}") from error
    table.columns = table.columns.map(str)
    check_unique(table.columns)
    if len(table) < 2:
        n_rows = {0: "no rows", 1: "one row"}[len(table)]
        raise InputError(f"{path} has {n_rows}; at least two rows are needed")
    return table


def _read_csv(path):
    """Read a CSV file, refusing what pandas would quietly repair."""
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
    names = header.iloc[0]
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise InputError(f"{path} is not separated by commas: its header is one cell")
    check_unique(names[names != ""])
    table = pd.read_csv(path, low_memory=False)
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"cannot read {path}: rows have more cells than the header")
    return table


def _read_parquet(path):
    """Read a Parquet file; pyarrow comes with the extra."""
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise InputError(
            'Parquet files need pyarrow: pip install "skebm[cli]"'
        ) from None


def check_suffix(path, suffixes=SUFFIXES):
    """Refuse a path that ends in none of the suffixes.

    Parameters
    ----------
    path : Path
        The path to a file, which need not exist.
    suffixes : sequence of str, default=(".csv", ".parquet")
        The suffixes that are accepted, in lower case.

    Raises
    ------
    InputError
        If the suffix is another one.
    """
    if path.suffix.lower() not in suffixes:
        wanted = " or ".join(suffixes)
        raise InputError(f"{path} does not end in {wanted}")


def check_unique(names):
    """Refuse column names that occur twice.

    Parameters
    ----------
    names : iterable of str
        The column names.

    Raises
    ------
    InputError
        If a name occurs more than once.
    """
    names = pd.Index(names)
    if not names.is_unique:
        twice = names[names.duplicated()][0]
        raise InputError(f"two columns are called {twice!r}; rename one of them")


def drop_columns(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Leave out columns by name.

    Parameters
    ----------
    table : DataFrame
        The table.
    names : sequence of str
        The columns to leave out.

    Returns
    -------
    DataFrame
        The table without the columns.

    Raises
    ------
    InputError
        If there is no such column; the message names the closest one.
    """
    for name in names:
        if name not in table.columns:
            close = difflib.get_close_matches(name, table.columns, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else "check the header"
            raise InputError(f"no column is called {name!r}; {hint}")
    return table.drop(columns=list(names))


def check_output(path: Path, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Refuse an output file before any work is done for it.

    Parameters
    ----------
    path : Path
        Where the file will be written.
    suffixes : sequence of str, default=(".csv", ".parquet")
        The suffixes that are accepted.

    Raises
    ------
    InputError
        If its directory does not exist, it is a directory, or the suffix is another.
    """
    check_suffix(path, suffixes)
    if not path.parent.is_dir():
        raise InputError(f"no such directory: {path.parent}")
    if path.is_dir():
        raise InputError(f"{path} is a directory")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV or Parquet, whole or not at all.

    Parameters
    ----------
    table : DataFrame
        The table; its index is written unless it just numbers the rows.
    path : Path
        Where to write; the suffix decides the format.
    """
    if path.suffix.lower() == ".csv":
        index = not isinstance(table.index, pd.RangeIndex)
        write_whole(path, lambda file: table.to_csv(file, index=index))
    else:
        write_whole(path, lambda file: table.to_parquet(file))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place and move it there once it is complete.

    Parameters
    ----------
    path : Path
        The file to write or replace.
    write : callable
        Called with the path of the temporary file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
