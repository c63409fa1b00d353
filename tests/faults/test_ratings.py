"""FAULTS.md for rating tables: RatingRBM, which takes no table of features.

Rows 3, 6, 8 and 9 are about the size of a number, which a level does not have; NaN is
no fault but an unrated item; row 26 asks for a checkpoint, which it does not write.
"""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from joblib import Parallel, delayed, dump, load
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from watch import global_state, stop_training

from skebm import RatingRBM
from skebm.exceptions import DivergenceError, InterruptedFitWarning


@pytest.fixture
def model():
    return RatingRBM(4, max_iter=5, random_state=0)


@pytest.fixture
def ratings():
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, [20, 10], (150, 2)), axis=0)
    columns = [*pairs.T, rng.integers(1, 6, len(pairs)).astype(float)]
    return pd.DataFrame(dict(zip(["user", "item", "rating"], columns, strict=True)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_row_01_a_rating_that_is_no_number(model, ratings, value):
    ratings.loc[3, "rating"] = value
    with pytest.raises(ValueError, match=r"NaN|infinity|finite"):
        model.fit(ratings)


@pytest.fixture
def rows(ratings):
    """The same ratings as users by items, NaN where unrated."""
    return ratings.pivot(index="user", columns="item", values="rating").to_numpy(
        copy=True
    )


READERS = ["predict", "energy", "transform"]
"""What reads rows of new users."""


def assert_same(found, expected, rows):
    for name in READERS:
        got, wanted = (getattr(model, name)(rows) for model in (found, expected))
        np.testing.assert_array_equal(got, wanted, err_msg=name)


@pytest.mark.parametrize("name", READERS)
def test_row_02_an_infinite_rating_in_a_new_row(model, rows, name):
    model.fit(rows)
    rows[3, 1] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        getattr(model, name)(rows)


@pytest.mark.parametrize("name", READERS)
def test_row_02_an_unrated_row_is_finite(model, rows, name):
    model.fit(rows)
    assert np.isfinite(getattr(model, name)(np.full((2, 10), np.nan))).all()


def test_row_05_one_item_or_one_user(model, rows):
    for table in (rows[:, :1], rows[:1]):
        model.fit(table)
        for name in READERS:
            assert np.isfinite(getattr(model, name)(table)).all()


@pytest.mark.parametrize("value", [1e30, -1e300])
def test_row_07_one_huge_rating(model, rows, value):
    """An absurd rating is the nearest level, in new rows; expectations stay inside."""
    model.fit(rows)
    rows[3, 1] = value
    assert np.isfinite(model.energy(rows)).all()
    found = model.predict(rows)
    assert np.all((found >= 1) & (found <= 5))


def test_row_10_all_ratings_equal(model, rows):
    rows[:] = 3.0
    np.testing.assert_array_equal(model.fit(rows).predict(rows), 3.0)
    assert len(np.unique(model.energy(rows))) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_row_11_few_ratings(model, ratings, n):
    model.fit(ratings[:n])
    assert np.isfinite(predicted(model, ratings)).all()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("columns", [1, 9, 11])
def test_row_12_wrong_number_of_items(model, rows, name, columns):
    model.fit(rows)
    with pytest.raises(ValueError, match=f"X has {columns} features, but .* 10"):
        getattr(model, name)(np.ones((5, columns)))


@pytest.mark.parametrize("name", READERS)
def test_row_13_items_reordered(model, rows, name):
    table = pd.DataFrame(rows, columns=list("abcdefghij"))
    model.fit(table)
    with pytest.raises(ValueError, match="feature names"):
        getattr(model, name)(table[table.columns[::-1]])


def test_row_15_ratings_that_are_words(model, ratings, rows):
    words = ratings.assign(rating=["good"] * len(ratings))
    for table in (words, rows.astype(str).astype(object) + "x"):
        with pytest.raises(ValueError, match=r"number|convert"):
            model.fit(table)


def test_row_15_users_and_items_that_are_words(model, ratings):
    named = ratings.assign(
        user=ratings["user"].map("u{:02d}".format),
        item=ratings["item"].map("i{:02d}".format),
    )
    expected = predicted(clone(model).fit(ratings), ratings)
    np.testing.assert_array_equal(predicted(model.fit(named), named), expected)


@pytest.mark.parametrize("number", ["float16", "float32", "int8", "uint8", "int64"])
def test_row_16_other_number_types(model, ratings, number):
    expected = predicted(clone(model).fit(ratings), ratings)
    model.fit(ratings.assign(rating=ratings["rating"].astype(number)))
    np.testing.assert_array_equal(predicted(model, ratings), expected)


def test_row_17_memory_layout(model, rows):
    expected = clone(model).fit(rows)
    wide = np.repeat(rows, 2, axis=1)[:, ::2]
    sparse = csr_matrix(np.nan_to_num(rows))
    for table in (np.asfortranarray(rows), wide, rows[::-1][::-1], sparse):
        assert_same(clone(model).fit(table), expected, rows)


def test_row_18_read_only_memory_map(model, rows, tmp_path):
    dump(rows, tmp_path / "rows")
    mapped = load(tmp_path / "rows", mmap_mode="r")
    assert_same(clone(model).fit(mapped), model.fit(rows), mapped)


def test_input_is_never_written(model, ratings, rows):
    before = ratings.copy(), rows.copy()
    predicted(model.fit(ratings), ratings)
    model.fit(rows).predict(rows)
    pd.testing.assert_frame_equal(ratings, before[0])
    np.testing.assert_array_equal(rows, before[1])


def test_row_14_no_ratings(model, ratings):
    with pytest.raises(ValueError, match="at least one rating"):
        model.fit(ratings[:0])


def test_row_19_a_diverging_learning_rate(model, ratings):
    with pytest.raises(DivergenceError, match="learning_rate"):
        model.set_params(learning_rate=1e30).fit(ratings)


@pytest.mark.parametrize(
    "params",
    [
        {"max_iter": -3},
        {"learning_rate": -1.0},
        {"n_components": 0},
        {"batch_size": 2.5},
        {"dropout": 1.0},
        {"weight_decay": -0.1},
        {"over": "items"},
        {"device": 3},
        {"random_state": "seed"},
    ],
)
def test_row_20_bad_parameters(model, ratings, params):
    with pytest.raises(ValueError, match=next(iter(params))):
        model.set_params(**params).fit(ratings)


@pytest.mark.parametrize("name", [*READERS, "recommend", "score"])
def test_row_21_not_fitted(model, rows, name):
    with pytest.raises(NotFittedError):
        getattr(model, name)(rows)


def test_row_21_not_fitted_after_a_failed_fit(model, ratings):
    with pytest.raises(ValueError, match="at least one rating"):
        model.fit(ratings).fit(ratings[:0])
    with pytest.raises(NotFittedError):
        predicted(model, ratings)


def predicted(model, ratings):
    return model.predict(ratings["user"], ratings["item"])


def test_row_22_one_seed_gives_the_same_bits(model, ratings):
    expected = predicted(model.fit(ratings), ratings)
    for again in (model, clone(model)):
        np.testing.assert_array_equal(predicted(again.fit(ratings), ratings), expected)


@pytest.mark.parametrize("n_components", [4, 50])
def test_row_24_a_prediction_has_no_neighbours(model, ratings, n_components):
    """Bit for bit the same alone, in any order and in any batch."""
    model.set_params(n_components=n_components).fit(ratings)
    expected = predicted(model, ratings)
    for size in (1, 3, 64):
        parts = [ratings[i : i + size] for i in range(0, len(ratings), size)]
        batched = np.concatenate([predicted(model, part) for part in parts])
        np.testing.assert_array_equal(batched, expected)
    turned = predicted(model, ratings[::-1])
    np.testing.assert_array_equal(turned, expected[::-1])


@pytest.mark.parametrize("name", READERS)
def test_row_24_rows_of_new_users_have_no_neighbours(model, rows, name):
    read = getattr(model.set_params(n_components=50).fit(rows), name)
    expected = read(rows)
    alone = [read(rows[i : i + 1]) for i in range(len(rows))]
    np.testing.assert_array_equal(np.concatenate(alone), expected)
    np.testing.assert_array_equal(read(rows[::-1]), expected[::-1])


def test_row_22_reading_changes_nothing(model, rows):
    before = pickle.dumps(model.fit(rows))
    for name in READERS:
        getattr(model, name)(rows)
    model.recommend(rows[:3], 1, temperature=1.0)
    assert pickle.dumps(model) == before


def test_row_23_global_state(model, rows):
    before = global_state()
    model.fit(rows)
    for name in READERS:
        getattr(model, name)(rows)
    after = global_state()
    for what, value in before.items():
        assert after[what] == value, what


def test_row_25_ctrl_c_keeps_the_last_whole_epoch(monkeypatch, model, rows):
    model.set_params(batch_size=5)
    stop_training(monkeypatch, KeyboardInterrupt, at_step=11)
    with pytest.warns(InterruptedFitWarning, match="interrupted") as caught:
        model.fit(rows)
    assert caught[0].filename == __file__
    assert model.n_iter_ == 2
    for name in READERS:
        assert np.isfinite(getattr(model, name)(rows)).all()


def test_row_30_threads_and_workers(model, rows):
    expected = clone(model).fit(rows)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(expected.predict, [rows] * 8):
            np.testing.assert_array_equal(found, expected.predict(rows))
        for found in pool.map(lambda _: clone(model).fit(rows), range(4)):
            assert_same(found, expected, rows)
    jobs = (delayed(clone(model).fit)(rows) for _ in range(2))
    for found in Parallel(n_jobs=2, backend="loky", timeout=120)(jobs):
        assert_same(found, expected, rows)
