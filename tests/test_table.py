import numpy as np
import pandas as pd
import pytest

from skebm.columns import MAX_LEVELS, TableEncoder
from skebm.table import (
    InputError,
    check_output,
    drop_columns,
    read_table,
    write_table,
    write_whole,
)


def make_table(n_rows=40):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": np.where(
                np.arange(n_rows) % 7 == 0, np.nan, rng.normal(size=n_rows)
            ),
            "colour": rng.choice(["red", "green", "blue"], n_rows),
            "known": pd.array([True, False, None, True] * (n_rows // 4), "boolean"),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(range(n_rows), "D"),
            "weight": rng.normal(size=n_rows),
        }
    )


@pytest.fixture
def table():
    return make_table()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".CSV"])
def test_written_tables_read_back(table, tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    write_table(table[["size", "colour", "weight"]], path)
    pd.testing.assert_frame_equal(read_table(path), table[["size", "colour", "weight"]])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_parquet_keeps_a_named_index(table, tmp_path):
    named = table[["weight"]].set_index(pd.Index(range(100, 140), name="id").map(str))
    write_table(named, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").index[0] == "100"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "is empty"),
        ("t.csv", "a,b\n", "no rows"),
        ("t.csv", "a,b\n1,2\n", "one row"),
        ("t.csv", "a,b,a\n1,2,3\n4,5,6\n", "two columns are called 'a'"),
        ("t.csv", "a;b\n1;2\n3;4\n", "not separated by commas"),
        ("t.csv", "a,b\n1,2\n1,2,3\n", "cannot read"),
        ("t.csv", "a,b\n1,2,3\n1,2,3\n", "more cells than the header"),
        ("t.parquet", "no parquet", "cannot read"),
        ("t.txt", "a,b\n1,2\n3,4\n", r"does not end in .csv or .parquet"),
    ],
)
def test_unusable_files(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(path)


def test_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n\xff\xfe,2\n3,4\n")
    with pytest.raises(InputError, match="cannot read"):
        read_table(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "t.csv")


def test_unknown_column_names_the_closest(table):
    with pytest.raises(InputError, match="did you mean 'colour'"):
        drop_columns(table, ["color"])
    with pytest.raises(InputError, match="check the header"):
        drop_columns(table, ["xyz"])
    assert list(drop_columns(table, ["size", "day"])) == ["colour", "known", "weight"]


def test_outputs_are_checked_before_the_work(tmp_path):
    with pytest.raises(InputError, match="no such directory"):
        check_output(tmp_path / "none" / "out.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError, match="is a directory"):
        check_output(tmp_path / "d.csv")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("old")

    def fail(file):
        file.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_encoded_values_are_finite_and_missing_values_have_a_column(table):
    encoder = TableEncoder().fit(table)
    rows = encoder.transform(table)
    assert rows.dtype == np.float64
    assert np.isfinite(rows).all()
    of_size = rows[:, encoder.origin_ == 0]
    median = table["size"].median()
    np.testing.assert_array_equal(of_size[:, 1], table["size"].isna())
    np.testing.assert_array_equal(of_size[:, 0], table["size"].fillna(median))


def test_origin_names_the_column_behind_each_encoded_column(table):
    encoder = TableEncoder().fit(table)
    names = [column.name for column in encoder.columns_]
    assert names == list(table.columns)
    n_encoded = np.bincount(encoder.origin_)
    assert dict(zip(names, n_encoded, strict=True)) == {
        "size": 2,
        "colour": 3,
        "known": 3,
        "day": 1,
        "weight": 1,
    }
    shifted = table.assign(weight=table["weight"] + 1, colour="red")
    changed = (encoder.transform(shifted) != encoder.transform(table)).any(axis=0)
    assert set(encoder.origin_[changed]) == {1, 4}


def test_sums_over_encoded_columns_keep_the_total(table):
    encoder = TableEncoder().fit(table)
    values = np.random.default_rng(0).normal(size=(7, len(encoder.origin_)))
    total = encoder.sum_to_columns(values)
    assert total.shape == (7, len(table.columns))
    np.testing.assert_allclose(total.sum(axis=1), values.sum(axis=1))
    np.testing.assert_allclose(total[:, 1], values[:, encoder.origin_ == 1].sum(axis=1))


def test_unseen_category_is_encoded_as_zeros(table):
    encoder = TableEncoder().fit(table)
    new = table.head(1).assign(colour="ultraviolet")
    assert not encoder.transform(new)[0, encoder.origin_ == 1].any()


def test_dates_become_seconds(table):
    encoder = TableEncoder().fit(table[["day", "weight"]])
    np.testing.assert_array_equal(np.diff(encoder.transform(table)[:, 0]), 86_400.0)
    text = table.assign(day=table["day"].dt.strftime("%Y-%m-%d"))
    again = TableEncoder().fit(text[["day", "weight"]])
    np.testing.assert_array_equal(
        again.transform(text)[:, 0], encoder.transform(table)[:, 0]
    )


def test_objects_of_other_kinds():
    from datetime import date
    from decimal import Decimal

    table = pd.DataFrame(
        {
            "price": [Decimal("1.5"), Decimal("2.5"), None, Decimal("0.5")],
            "born": [date(2000, 1, 1), date(2001, 1, 1), None, date(2002, 1, 1)],
            "mixed": ["a", 1, "a", 1],
            "span": pd.to_timedelta([1, 2, 4, 9], "s"),
        }
    )
    encoder = TableEncoder().fit(table)
    kinds = [column.kind for column in encoder.columns_]
    assert kinds == ["number", "date", "category", "number"]
    assert np.isfinite(encoder.transform(table)).all()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([np.nan] * 60, "no values"),
        (["x"] * 60, "one value in every row"),
        ([f"name {i}" for i in range(60)], "60 different values"),
        (list(range(60)), "numbers the rows in order"),
        ([1j, 2j] * 30, "not supported"),
    ],
)
def test_columns_that_are_left_out(values, why):
    table = pd.DataFrame({"odd": values, "x": np.arange(60.0) ** 2})
    encoder = TableEncoder().fit(table)
    assert [column.name for column in encoder.columns_] == ["x"]
    assert why in encoder.left_out_["odd"]


def test_no_usable_column_says_why():
    with pytest.raises(InputError, match=r"no column can be used .*odd: no values"):
        TableEncoder().fit(pd.DataFrame({"odd": [np.nan, np.nan]}))


def test_infinite_values_name_the_column():
    with pytest.raises(InputError, match="'x' holds infinite values"):
        TableEncoder().fit(pd.DataFrame({"x": [1.0, np.inf, 2.0]}))


def test_many_categories_share_a_column():
    levels = [f"level {i % 40}" for i in range(200)]
    encoder = TableEncoder().fit(pd.DataFrame({"c": levels}))
    assert len(encoder.origin_) == MAX_LEVELS
