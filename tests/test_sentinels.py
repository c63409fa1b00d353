"""Values that may stand for missing ones: found where planted, not in clean columns."""

import numpy as np
import pandas as pd
import pytest

from skebm.columns import Column
from skebm.reasons import ColumnValues
from skebm.sentinels import find_sentinels

N_ROWS = 500


def _zero_inflated(rng):
    return np.where(rng.random(N_ROWS) < 0.6, 0, rng.negative_binomial(1, 0.02, N_ROWS))


CLEAN = {
    "normal": lambda rng: rng.normal(size=N_ROWS),
    "log-normal": lambda rng: np.exp(2 * rng.normal(size=N_ROWS)).round(),
    "pareto": lambda rng: (100 * rng.pareto(1.1, N_ROWS)).round(),
    "t2": lambda rng: (30 * rng.standard_t(2, N_ROWS)).round(),
    "hundreds": lambda rng: rng.normal(0, 150, N_ROWS).round(-2),
    "binary": lambda rng: rng.integers(0, 2, N_ROWS),
    "signs": lambda rng: rng.choice([-1, 1], N_ROWS),
    "nines": lambda rng: rng.choice([0, 99], N_ROWS),
    "percent": lambda rng: rng.integers(0, 100, N_ROWS),
    "counts": lambda rng: rng.poisson(3, N_ROWS),
    "large counts": lambda rng: rng.poisson(95, N_ROWS),
    "zero-inflated": _zero_inflated,
    "prices": lambda rng: rng.choice([9.99, 19.99, 49.9, 99.9, 199, 499, 999], N_ROWS),
    "capped": lambda rng: np.minimum(np.exp(3 + rng.normal(size=N_ROWS)).round(), 99),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_columns_have_none(name):
    for seed in range(100):
        values = CLEAN[name](np.random.default_rng(seed))
        assert find_sentinels(values, "number") == {}


@pytest.mark.parametrize(
    ("values", "mark"),
    [
        (lambda rng: rng.normal(900, 160, N_ROWS).round(2), -999),
        (lambda rng: rng.normal(45, 12, N_ROWS).round().clip(18, 90), 999),
        (lambda rng: rng.gamma(2, 1.1, N_ROWS).round(1), -200),
        (lambda rng: rng.negative_binomial(2, 0.01, N_ROWS), -200),
        (lambda rng: rng.normal(15, 8, N_ROWS).round(1), -9999),
        (lambda rng: rng.normal(15, 8, N_ROWS).round(1), 999.9),
        (lambda rng: np.exp(8 + rng.normal(size=N_ROWS)).round(), 99999999),
        (lambda rng: rng.integers(1, 6, N_ROWS), 99),
        (lambda rng: rng.poisson(3, N_ROWS), 99),
    ],
)
@pytest.mark.parametrize("n_marks", [2, 30])
@pytest.mark.parametrize("seed", range(5))
def test_planted_marks_are_found(values, mark, n_marks, seed):
    rng = np.random.default_rng(seed)
    planted = np.asarray(values(rng), dtype=float)
    planted[rng.permutation(N_ROWS)[:n_marks]] = mark
    assert find_sentinels(planted, "number") == {str(mark): n_marks}


def test_several_marks_of_one_column():
    values = [1, 2, 3, 4, 5, 2, 3, 97, 97, 98, 98, 99, 99, 99, -999, -999]
    expected = {"-999": 2, "99": 3, "98": 2, "97": 2}
    assert find_sentinels(values, "number") == expected


def test_one_value_alone_is_an_anomaly_and_no_mark():
    assert find_sentinels([1.0, 2.0, 3.0, 4.0, 999.0], "number") == {}


@pytest.mark.parametrize("mark", ["9999-12-31", "1900-01-01", "2099-12-31"])
@pytest.mark.parametrize("as_text", [True, False])
def test_dates_far_from_the_others(mark, as_text):
    days = pd.Series(pd.date_range("2019-01-01", periods=300, unit="us").to_numpy())
    days = days.sample(frac=1, random_state=0, ignore_index=True)
    days[[3, 14, 15]] = pd.Timestamp(mark).as_unit("us")
    days = days.dt.strftime("%Y-%m-%d") if as_text else days
    column = ColumnValues(Column("until", "date"), days)
    assert column.notes() == [
        f"`until`: 3 of 300 cells are {mark}, far from the other values; if it stands "
        "for missing, replace it"
    ]
    assert column.value_text(3) == mark


def test_dates_without_marks_have_none():
    rng = np.random.default_rng(0)
    born = np.datetime64("1900-01-01") + rng.integers(0, 36_000, 500).astype("m8[D]")
    seconds = born.astype("datetime64[s]").astype(float)
    assert find_sentinels(seconds, "date") == {}
