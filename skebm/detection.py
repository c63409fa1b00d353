"""What ``skebm detect`` computes: scores, contributions and a reason for each anomaly.

A table's way: ``TableEncoder -> EnergyOutlierDetector -> Detection -> table, report``.
Both are fitted on the clean rows where there are some, and on the table otherwise.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from skebm import calibration
from skebm.columns import TableEncoder
from skebm.estimators.outlier import EnergyOutlierDetector
from skebm.reasons import ColumnValues, plain_text
from skebm.settings import Settings
from skebm.table import InputError, drop_columns

ADDED = ("energy", "p_value", "is_outlier", "reason")
MAX_EXPLAINED = 1_000
N_NAMED = 3
N_TOP = 20
_CHUNK = 50


@dataclass(frozen=True)
class Detection:
    """Scores and explanations of the rows of one table.

    Parameters
    ----------
    table : DataFrame of shape (n_samples, n_table_columns)
        The table as it was read.
    settings : Settings
        What was asked for.
    columns : list of ColumnValues
        The columns that the energy sees.
    left_out : dict
        Name of each other column that was not ignored -> why it is not used.
    energy : ndarray of shape (n_samples,)
        Energy of each row; low means typical.
    p_value : ndarray of shape (n_samples,)
        p-values in (0, 1]; small means anomalous. With ``settings.clean`` they are
        conformal: an ordinary row has p <= a with probability at most a. Without,
        they are the ranks of the rows among the rows of the table itself, which
        control no false discoveries.
    is_outlier : ndarray of bool, shape (n_samples,)
        Which rows are flagged.
    threshold : float or None
        Rows above this energy are flagged; None if no row is and there is no threshold.
    contributions : dict
        Position of each explained row -> contributions of the columns to its energy,
        which sum to the energy minus ``baseline``.
    baseline : float
        The energy that contributions count from.
    n_clean : int, default=0
        Number of clean rows; 0 if the training rows are those of the table.
    clean_notes : list of str, default=[]
        What was noted about the cells of the clean rows.
    """

    table: pd.DataFrame
    settings: Settings
    columns: list[ColumnValues]
    left_out: dict[str, str]
    energy: np.ndarray
    p_value: np.ndarray
    is_outlier: np.ndarray
    threshold: float | None
    contributions: dict[int, np.ndarray] = field(repr=False)
    baseline: float
    n_clean: int = 0
    clean_notes: list[str] = field(default_factory=list)

    def top(self, k=N_TOP):
        """Positions of the rows with the highest energy.

        Parameters
        ----------
        k : int, default=20
            How many rows.

        Returns
        -------
        ndarray of shape (min(k, n_samples),)
            Positions, the highest energy first.
        """
        return np.argsort(-self.energy, kind="stable")[:k]

    def drivers(self, row, k=N_NAMED):
        """Columns that raise the energy of an explained row most.

        Parameters
        ----------
        row : int
            Position of the row.
        k : int, default=3
            How many columns.

        Returns
        -------
        list of int
            Positions in ``columns`` of at most k columns with positive contributions.
        """
        parts = self.contributions[row]
        order = np.argsort(-parts, kind="stable")[:k]
        return [int(j) for j in order if parts[j] > 0]

    def reason(self, row):
        """Say in a line why a row is strange.

        Parameters
        ----------
        row : int
            Position of the row.

        Returns
        -------
        str
            The first three columns with their values.
        """
        if row not in self.contributions:
            return f"not explained: only the {MAX_EXPLAINED:,} highest energies are"
        drivers = [self.columns[j].reason(row) for j in self.drivers(row)]
        return "; ".join(drivers) or "no single column stands out"

    def scored(self):
        """Table with the scores.

        Returns
        -------
        DataFrame of shape (n_samples, n_table_columns + 4)
            The table and the columns energy, p_value, is_outlier and reason; the reason
            is empty for rows that are not flagged.
        """
        reasons = [
            self.reason(i) if self.is_outlier[i] else "" for i in range(len(self.table))
        ]
        values = (self.energy, self.p_value, self.is_outlier, reasons)
        return self.table.assign(**dict(zip(ADDED, values, strict=True)))

    def label(self, row):
        """Name of a row: its position from 0, or its index where the table has one.

        Parameters
        ----------
        row : int
            Position of the row.

        Returns
        -------
        str
            The label, at most 40 characters.
        """
        return plain_text(self.table.index[row], 40)

    def notes(self):
        """Say what was left out, and how cells were read.

        Returns
        -------
        list of str
            Ignored columns, columns that are not used, cells that are no numbers,
            values that may stand for missing ones, and rows without a reason.
        """
        notes = []
        if self.settings.ignore:
            names = ", ".join(plain_text(name, 60) for name in self.settings.ignore)
            notes.append(f"ignored as asked: {names}")
        for name, why in self.left_out.items():
            where = " (in the clean rows)" if self.settings.clean else ""
            notes.append(f"column {plain_text(name, 60)} is not used: {why}{where}")
        notes += [note for column in self.columns for note in column.notes()]
        notes += self.clean_notes
        if self.is_outlier.sum() > MAX_EXPLAINED <= len(self.contributions):
            notes.append(
                f"of {self.is_outlier.sum():,} flagged rows, the {MAX_EXPLAINED:,} "
                "with the highest energy have a reason"
            )
        if self.settings.fdr is not None and not self.is_outlier.any():
            notes.append(self._why_none())
        return notes

    def _why_none(self):
        """Why no row is flagged under a bound on false discoveries."""
        if not self.settings.clean:
            return (
                "with --novelty every row of the table is taken to be ordinary, so "
                "--fdr can flag none; give ordinary rows with --clean CLEAN.csv"
            )
        needed = math.ceil(self.p_value.min() * len(self.table) / self.settings.fdr)
        return (
            f"the smallest p-value is {self.p_value.min():.2g}, so {needed:,} rows "
            "would have to share it to be flagged; give more clean rows, raise --fdr "
            "or use --contamination"
        )

    def rule(self):
        """Say in a line which rows are flagged.

        Returns
        -------
        str
            The rule, without the threshold's value.
        """
        if self.settings.fdr is not None:
            return (
                f"Benjamini-Hochberg on the p-values: at most {self.settings.fdr:g} "
                "of the flagged rows are expected to be false alarms"
            )
        if self.settings.contamination is not None:
            share = self.settings.contamination
            if self.settings.clean:
                return f"energy above that of all but {share:.4g} of the clean rows"
            return f"the {share:.4g} share of rows with the highest energy"
        return "energy threshold that aims at 5% false alarms on ordinary rows"


def detect(
    table,
    settings,
    *,
    clean=None,
    explain_flagged=True,
    callbacks=(),
    track=lambda items, label: items,
):
    """Find the anomalies in a table.

    Parameters
    ----------
    table : DataFrame of shape (n_samples, n_table_columns)
        The table, at least two rows.
    settings : Settings
        How to look.
    clean : DataFrame of shape (n_clean, n_table_columns) or None, default=None
        Ordinary rows with the columns of the table: the encoder and the detector are
        fitted on them. None fits both on the table.
    explain_flagged : bool, default=True
        Whether to explain the flagged rows, at most the 1,000 highest energies; False
        explains the 20 rows with the highest energy only.
    callbacks : sequence of callbacks, default=()
        Scikit-learn callbacks of the fit.
    track : callable, default=``lambda items, label: items``
        Wraps the iterations of a long step, to show their progress.

    Returns
    -------
    Detection
        The scores of all rows, and the contributions of the explained ones.

    Raises
    ------
    InputError
        If a table or a setting cannot be used.
    """
    settings = replace(settings, clean=clean is not None)
    settings.check()
    _refuse_clash(table)
    used = drop_columns(table, settings.ignore)
    training = used if clean is None else _matching(clean, used, settings.ignore)
    encoder = TableEncoder().fit(training)
    rows = encoder.transform(used)
    training_rows = rows if clean is None else encoder.transform(training)
    detector = _fit_detector(training_rows, settings, callbacks)
    if clean is None:
        detector = detector.leave_one_out()
    scores = _scores(detector, rows, settings)
    contributions = _contributions(
        detector,
        rows,
        encoder,
        _to_explain(scores["energy"], scores["is_outlier"] & explain_flagged),
        track,
    )
    return Detection(
        table=table,
        settings=settings,
        columns=[
            ColumnValues(c, used[c.name], training[c.name]) for c in encoder.columns_
        ],
        left_out=encoder.left_out_,
        contributions=contributions,
        baseline=float(detector.explain_baseline_),
        n_clean=0 if clean is None else len(clean),
        clean_notes=[] if clean is None else _clean_notes(encoder, training),
        **scores,
    )


def _refuse_clash(table):
    """Refuse a table with a column that the result adds."""
    clash = [name for name in ADDED if name in table.columns]
    if clash:
        raise InputError(
            f"the table has a column called {clash[0]!r}, which the result adds; "
            "rename or remove it"
        )


def _matching(clean, used, ignore):
    """Clean rows with the columns of the table; refuse a column that one lacks."""
    clean = clean.drop(columns=[name for name in ignore if name in clean.columns])
    for name in used.columns.difference(clean.columns, sort=False):
        raise InputError(
            f"column {name!r} is in the table but not in the clean rows; add it there "
            "or leave it out with --ignore"
        )
    for name in clean.columns.difference(used.columns, sort=False):
        raise InputError(
            f"column {name!r} is in the clean rows but not in the table; remove it "
            "there, or add it to the table"
        )
    return clean[list(used.columns)]


def _clean_notes(encoder, clean):
    """Return the notes about the cells of the clean rows."""
    columns = [ColumnValues(c, clean[c.name]) for c in encoder.columns_]
    return [f"clean rows: {note}" for column in columns for note in column.notes()]


def _fit_detector(rows, settings, callbacks):
    """Fit the detector; what it refuses is an error of the table."""
    detector = EnergyOutlierDetector(
        novelty=settings.all_ordinary,
        contamination=settings.contamination or "auto",
        device=settings.device,
        random_state=settings.seed,
    ).set_callbacks(*callbacks)
    try:
        return detector.fit(rows)
    except ValueError as error:
        raise InputError(" ".join(str(error).split())) from error


def _scores(detector, rows, settings):
    """Energy, p-value, flag and threshold of each row."""
    energy, p_value = detector.energy(rows), detector.p_values(rows)
    threshold = -float(detector.offset_)
    is_outlier = energy > threshold
    if settings.fdr is not None:
        is_outlier = calibration.benjamini_hochberg(p_value, settings.fdr)
        threshold = float(energy[is_outlier].min()) if is_outlier.any() else None
    return {
        "energy": energy,
        "p_value": p_value,
        "is_outlier": is_outlier,
        "threshold": threshold,
    }


def _to_explain(energy, is_outlier):
    """Positions of the flagged rows and the top 20, the highest energy first."""
    order = np.argsort(-energy, kind="stable")
    flagged = order[is_outlier[order]][:MAX_EXPLAINED]
    return list(dict.fromkeys(np.concatenate([order[:N_TOP], flagged]).tolist()))


def _contributions(detector, rows, encoder, positions, track):
    """Contribution of each column to the energy of the rows at some positions."""
    chunks = [positions[i : i + _CHUNK] for i in range(0, len(positions), _CHUNK)]
    parts = {}
    for chunk in track(chunks, "Explaining"):
        encoded = detector.explain(rows[chunk])
        parts.update(zip(chunk, encoder.sum_to_columns(encoded), strict=True))
    return parts
