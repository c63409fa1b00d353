"""Text as numbers: what is one, which decimal mark a column has, and what is none."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from skebm.cells import find_reading, to_numbers
from skebm.columns import TableEncoder
from skebm.detection import Settings, detect
from skebm.reasons import ColumnValues

MARKS = ["?", " ", "", "n/a", "-", "None", "unknown", "#N/A"]
PLANTED = 41


def read(cells, dtype=object):
    values = pd.Series(cells, dtype=dtype)
    reading = find_reading(values)
    return None if reading is None else list(to_numbers(values, reading))


def numbers_in_text(mark=None, n_marks=0, n_rows=303):
    """A column of numbers as text, the planted 1500 among them, some cells replaced."""
    rng = np.random.default_rng(0)
    chol = pd.Series(rng.normal(246, 50, n_rows).round()).astype(int)
    chol[PLANTED] = 1500
    text = chol.astype(str).astype(object)
    text[rng.permutation(np.delete(np.arange(n_rows), PLANTED))[:n_marks]] = mark
    return chol, text


def heart(chol):
    """A table around one column of 303 cells."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.normal(size=(len(chol), 3)), columns=list("abc"))
    return table.assign(chol=chol, kind=rng.choice(list("xyz"), len(chol)))


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1,571", "2,045", "999"], [1571, 2045, 999]),
        (["1 571", "1\u00a0571", "1\u202f571"], [1571, 1571, 1571]),
        (["1'571", "1\u2019571.5"], [1571, 1571.5]),
        (["12,34,567"], [1234567]),
        (["$1,571.00", "-$3.5", "$-4", "US$5", "USD 6"], [1571, -3.5, -4, 5, 6]),
        (["1.234,50 EUR", "12,5 €", "€12"], [1234.5, 12.5, 12]),
        (["12%", "12.5 %", "-3%"], [12, 12.5, -3]),
        (["12,5", "1.234,50", "3"], [12.5, 1234.5, 3]),
        (["0,123", "1,234"], [0.123, 1.234]),
        (["1.571", "2.045"], [1.571, 2.045]),
        (["1.234.567", "2.045"], [1234567, 2045]),
        (["(120.00)", "(1,300.00)", "5.00"], [-120, -1300, 5]),
        (["+5", "\u22125", "-5"], [5, -5, -5]),
        (["1e5", "2.5E-3", ".5", "5."], [1e5, 2.5e-3, 0.5, 5]),
        ([1, "2", Decimal("3.5"), np.float32(4), "1,000.5"], [1, 2, 3.5, 4, 1000.5]),
        ([" 7 ", "\t8"], [7, 8]),
        (["0", "1", "2"], [0, 1, 2]),
    ],
)
def test_cells_that_are_numbers(cells, numbers):
    assert read(cells) == numbers


@pytest.mark.parametrize(
    "cells",
    [
        ["10-20", "20-30"],
        ["3rd", "4th"],
        ["A12", "B7"],
        ["5 kg", "6 kg"],
        ["01234", "90210", "02134"],
        ["612 345 678", "655 123 999"],
        ["+49 170 123 456", "+1 555 123 456"],
        ["2024-01-02", "2024-01-03"],
        ["01.02.2024", "11.12.2024"],
        ["1/2", "3/4"],
        ["12:30", "08:15"],
        ["1.2.3", "1.3.0"],
        ["1,5", "1.5"],
        ["$5", "€5"],
        ["$5%", "6"],
        ["--5", "6"],
        ["(5", "6"],
        ["-(5)", "6"],
        ["1_000", "0x10"],
        [True, False],
        ["yes", "no"],
        ["?", " "],
        [],
    ],
)
def test_cells_that_are_no_numbers(cells):
    assert read(cells) is None


@pytest.mark.parametrize("mark", [*MARKS, "see note"])
@pytest.mark.parametrize("n_marks", [1, 3, 10])
def test_a_few_other_cells_are_missing(mark, n_marks):
    chol, text = numbers_in_text(mark, n_marks)
    plain = np.array(read(text))
    other = (text == mark).to_numpy()
    assert np.isnan(plain[other]).all()
    np.testing.assert_array_equal(plain[~other], chol[~other])


@pytest.mark.parametrize(("n_others", "is_read"), [(5, True), (6, False)])
def test_a_column_is_numeric_from_95_percent_of_its_cells(n_others, is_read):
    cells = [str(i) for i in range(100 - n_others)] + ["many"] * n_others
    assert (read(cells) is not None) == is_read
    assert (read([*cells, *["  "] * 50, *["?"] * 50]) is not None) == is_read


@pytest.mark.parametrize("mark", MARKS)
def test_marks_of_missing_values_do_not_count_against_a_column(mark):
    assert np.isnan(read(["1.5", "2.5", mark, mark, mark])).sum() == 3


@pytest.mark.parametrize("dtype", [object, "string", "str"])
def test_every_type_of_text_is_read(dtype):
    table = heart(pd.Series(numbers_in_text("?", 3)[1], dtype=dtype))
    column = TableEncoder().fit(table).columns_[3]
    assert (column.name, column.kind) == ("chol", "number")
    note = "`chol`: 3 of 303 cells are no numbers, taken as missing"
    assert ColumnValues(column, table["chol"]).notes() == [note]


def test_a_categorical_column_stays_a_category():
    values = pd.Series(["1", "2", "3", "1"] * 10).astype("category")
    encoder = TableEncoder().fit(pd.DataFrame({"grade": values}))
    assert encoder.columns_[0].kind == "category"


def test_notes_count_blank_cells_as_the_telco_table_has_them():
    charges = pd.Series([" "] * 11 + [f"{i / 7:.2f}" for i in range(7_032)])
    encoder = TableEncoder().fit(pd.DataFrame({"TotalCharges": charges}))
    notes = ColumnValues(encoder.columns_[0], charges).notes()
    assert notes == [
        "`TotalCharges`: 11 of 7,043 cells are no numbers, taken as missing"
    ]
    one = ColumnValues(encoder.columns_[0], charges[10:]).notes()
    assert one == ["`TotalCharges`: 1 of 7,033 cells is no number, taken as missing"]


def test_a_fitted_reading_holds_for_later_rows():
    """1.571 alone would be 1.571; in a column with a decimal comma it is 1571."""
    encoder = TableEncoder().fit(pd.DataFrame({"x": ["12,5", "3,25", "1.571,0"]}))
    later = encoder.transform(pd.DataFrame({"x": ["1.571", "2,5"]}))
    np.testing.assert_array_equal(later[:, 0], [1571, 2.5])
    plain = TableEncoder().fit(pd.DataFrame({"x": [12.5, 3.25, 1571.0]}))
    later = plain.transform(pd.DataFrame({"x": ["1.571,0", "2,5"]}))
    np.testing.assert_array_equal(later[:, 0], [1571, 2.5])


def test_text_that_numbers_the_rows_is_left_out():
    table = pd.DataFrame({"id": [str(i) for i in range(60)], "x": np.arange(60) ** 2})
    assert TableEncoder().fit(table).left_out_ == {"id": "numbers the rows in order"}


def _as_money(v):
    return f"${v:,}"


def _as_percent(v):
    return f"{v}%"


def _with_comma(v):
    return f"{v / 10:.1f}".replace(".", ",")


def _with_both(v):
    return f"{v:,}".replace(",", ".") + ",00"


@pytest.mark.parametrize("write", [_as_money, _as_percent, _with_comma, _with_both])
def test_the_planted_number_is_first_however_it_is_written(write):
    chol, _ = numbers_in_text()
    plain = detect(heart(chol), Settings(), explain_flagged=False)
    found = detect(heart(chol.map(write)), Settings(), explain_flagged=False)
    assert plain.top(1) == found.top(1) == [PLANTED]
    # A tenth, where the comma divides by ten, moves float32 sums a little.
    np.testing.assert_allclose(found.energy, plain.energy, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mark", ["?", " ", "n/a"])
@pytest.mark.parametrize("n_marks", [1, 3, 10])
def test_the_planted_number_is_first_after_others_are_none(mark, n_marks):
    _, text = numbers_in_text(mark, n_marks)
    found = detect(heart(text), Settings(), explain_flagged=False)
    assert found.top(1) == [PLANTED]
    assert found.reason(PLANTED).startswith("chol = 1500 (high)")
    assert any("taken as missing" in note for note in found.notes())


@pytest.mark.parametrize("n_marks", [1, 3, 10])
def test_a_few_cells_that_are_no_dates_are_missing(n_marks):
    days = pd.Series(pd.date_range("2024-01-01", periods=60, freq="36h"))
    text = days.dt.strftime("%Y-%m-%d").astype(object)
    text[: n_marks - 1], text[59] = "?", "soon"
    table = pd.DataFrame({"day": text})
    encoder = TableEncoder().fit(table)
    assert encoder.columns_[0].kind == "date"
    seconds = encoder.transform(table)[n_marks - 1 : 59, 0]
    np.testing.assert_array_equal(
        seconds, [d.timestamp() for d in pd.to_datetime(text[n_marks - 1 : 59])]
    )
    (note,) = ColumnValues(encoder.columns_[0], text).notes()
    verb = "is no date" if n_marks == 1 else "are no dates"
    assert note == f"`day`: {n_marks} of 60 cells {verb}, taken as missing"


def test_a_column_of_words_and_some_dates_is_no_date():
    text = ["2024-01-01"] * 90 + ["2024-01-02"] * 4 + ["soon"] * 6
    encoder = TableEncoder().fit(pd.DataFrame({"day": text}))
    assert encoder.columns_[0].kind == "category"
