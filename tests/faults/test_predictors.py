"""FAULTS.md for classifiers, the regressor and the encoder: rows on densities' scores.

Rows 1, 2, 4, 12 to 15, 17, 18 and 20 to 23 run over these in the files of their
numbers. Here are the others, asked of whatever an estimator predicts. Rows 3b, 6 to 9
and 16 are about the size of a number, which bits do not have; row 19 and 25 need steps
at a learning rate (`ChainLabeler` has none, its Ctrl-C is in its own file), and row 26
a checkpoint.
"""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.base import clone, is_classifier, is_regressor
from tables import fit
from watch import stop_training, told_by

from skebm.exceptions import InterruptedFitWarning

predictors = pytest.mark.estimators("predictor")
real = pytest.mark.estimators("predictor", "real")


def widened(rows, values):
    """Return the rows with one more column."""
    return np.c_[rows, np.broadcast_to(values, len(rows))].astype(rows.dtype)


def results(estimator, rows, readers):
    """Return what every reader tells of the rows, by its name."""
    return {
        name: np.asarray(getattr(estimator, name)(rows)) for name in readers(estimator)
    }


def assert_finite(found):
    """Labels are finite too: none of them is missing."""
    for name, values in found.items():
        known = np.isfinite(values) if values.dtype.kind == "f" else values == values
        assert np.all(known), name


def assert_same(found, expected):
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@predictors
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_row_03_constant_column(estimator, X, X_new, dtype, readers, value):
    fit(estimator, widened(X.astype(dtype), value))
    for values in (value, 1 - value):
        rows = widened(X_new.astype(dtype), values)
        assert_finite(results(estimator, rows, readers))


@real
@pytest.mark.parametrize("step", [1e-5, -1e-5])
def test_row_03b_constant_column_moves_a_little(estimator, X, X_new, readers, step):
    """At most one label in twenty changes, and no number by more than a fiftieth."""
    fit(estimator, widened(X, 3.0))
    before = results(estimator, widened(X_new, 3.0), readers)
    after = results(estimator, widened(X_new, 3.0 + step), readers)
    for name, values in before.items():
        if values.dtype.kind != "f":
            assert np.mean(after[name] != values) <= 0.05, name
            continue
        change = np.abs(after[name] - values).max()
        assert change <= 0.02 * max(np.ptp(values), 1e-9), name


@predictors
def test_row_05_one_column(fitted, table, dtype, readers):
    X = table(60, 1).astype(dtype)
    assert_finite(results(fitted(X), X, readers))


@real
@pytest.mark.parametrize("power", [-1000, -100, 100, 1000])
def test_row_06_all_scaled(estimator, X, X_new, readers, power):
    """Powers of two change no digit of X, so no digit of what is read either."""
    y = targets(estimator, X)
    expected = results(clone(estimator).fit(X, y), X_new, readers)
    factor = 2.0**power
    found = results(estimator.fit(factor * X, y), factor * X_new, readers)
    if hasattr(estimator, "log_partition_"):  # a density of rows, in other units
        moved = found.pop("score_samples") + 3 * power * np.log(2.0)
        np.testing.assert_allclose(moved, expected.pop("score_samples"), rtol=1e-9)
    assert_same(found, expected)


@real
@pytest.mark.parametrize("value", [1e30, 1e300, 1.7e308])
def test_row_07_one_huge_value(fitted, X, X_new, readers, value):
    estimator = fitted(X)
    rows = X_new.copy()
    rows[7, 1] = value
    found = results(estimator, rows, readers)
    assert_finite(found)
    usual = results(estimator, X_new, readers)
    for name, values in usual.items():
        others = np.arange(len(rows)) != 7
        np.testing.assert_array_equal(found[name][others], values[others])


@real
@pytest.mark.parametrize("value", [1e30, 1e300])
def test_row_07_one_huge_value_in_fit(estimator, X, readers, value):
    y = targets(estimator, X)
    X[5, 1] = value
    assert_finite(results(estimator.fit(X, y), X, readers))


@real
def test_row_08_beyond_float32(estimator, X, X_new, readers):
    y = targets(estimator, X)
    assert_finite(results(estimator.fit(1e300 * X, y), 1e300 * X_new, readers))


@real
def test_row_09_denormals_are_constant(estimator, X, X_new, readers):
    tiny = 1e-310 * np.arange(len(X))
    with pytest.warns(UserWarning, match="treated as constant"):
        fit(estimator, widened(X, tiny))
    assert_finite(results(estimator, widened(X_new, tiny[: len(X_new)]), readers))


@predictors
def test_row_10_all_rows_equal(estimator, table, dtype, readers):
    X = np.tile(table(5)[4:], (40, 1)).astype(dtype)
    estimator.fit(X, targets(estimator, np.arange(40.0)[:, None]))
    found = results(estimator, X, readers)
    assert_finite(found)
    for values in found.values():
        assert len(np.unique(values, axis=0)) == 1


@predictors
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 19, 20, 21, 22])
def test_row_11_few_rows(estimator, X, X_new, dtype, readers, n):
    y = targets(estimator, np.arange(float(n))[:, None])
    estimator.fit(X[:n].astype(dtype), y)
    assert_finite(results(estimator, X_new.astype(dtype)[:3], readers))


@real
@pytest.mark.parametrize("number", ["float16", "int8", "uint8", "int64", "bool"])
def test_row_16_other_number_types_are_upcast(estimator, rng, readers, number):
    X = rng.integers(0, 2 if number == "bool" else 100, (60, 3))
    y = targets(estimator, np.arange(60.0)[:, None])
    expected = results(clone(estimator).fit(X.astype(float), y), X, readers)
    found = results(estimator.fit(X.astype(number), y), X.astype(number), readers)
    for name, values in expected.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-3)
        else:
            np.testing.assert_array_equal(found[name], values)


@pytest.mark.estimators("predictor", "trained")
@pytest.mark.parametrize("rate", [1e4, 1e8, 1e30])
def test_row_19_a_diverging_learning_rate(estimator, fitted, X, rate):
    """It is told, or the recipe copes: never finite nonsense in silence."""
    expected = fitted(X).score(X, targets(estimator, X))
    messages = told_by(lambda X: fit(estimator.set_params(learning_rate=rate), X), X)
    if messages:
        assert any("learning_rate" in message for message in messages)
        return
    assert estimator.score(X, targets(estimator, X)) > expected - 0.05


@predictors
@pytest.mark.parametrize("width", [1, 3, 10, 17])
def test_row_24_row_independence(estimator, table, rng, dtype, readers, width):
    """What is read of a row is the same alone, in any order and batch, bit for bit."""
    fit(estimator, table(60, width).astype(dtype))
    rows = table(150, width).astype(dtype)
    order = rng.permutation(len(rows))
    for name in readers(estimator):
        read = getattr(estimator, name)
        expected = np.asarray(read(rows))
        for i in range(0, 150, 15):
            np.testing.assert_array_equal(read(rows[i : i + 1])[0], expected[i])
        np.testing.assert_array_equal(read(rows[order]), expected[order])
        parts = [np.asarray(read(rows[i : i + 64])) for i in range(0, 150, 64)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)


@pytest.mark.estimators("predictor", "trained")
def test_row_25_ctrl_c_keeps_what_was_trained(
    monkeypatch, estimator, X, X_new, readers
):
    steps = stop_training(monkeypatch, KeyboardInterrupt, at_step=11)
    estimator.set_params(batch_size=25)
    with pytest.warns(InterruptedFitWarning, match="interrupted"):
        assert fit(estimator, X) is estimator
    assert len(steps) >= 11
    assert_finite(results(estimator, X_new, readers))


@pytest.mark.estimators("predictor", "resumes")
def test_row_26_a_killed_fit_goes_on_from_its_checkpoint(
    monkeypatch, estimator, X, X_new, readers, tmp_path
):
    estimator.set_params(batch_size=25)
    with monkeypatch.context() as patch:
        every = stop_training(patch, None, at_step=None)
        expected = fit(clone(estimator), X)
    estimator.set_params(checkpoint=tmp_path / "fit")
    with monkeypatch.context() as patch:
        stop_training(patch, MemoryError, at_step=11)
        with pytest.raises(MemoryError):
            fit(estimator, X)
    steps = stop_training(monkeypatch, None, at_step=None)
    found = results(fit(estimator, X), X_new, readers)
    assert len(steps) == len(every) - 2 * 4  # two epochs of four batches were whole
    assert_same(found, results(expected, X_new, readers))


@predictors
def test_row_30_eight_threads_read(fitted, table, readers, X):
    estimator = fitted(X)
    name = readers(estimator)[0]
    batches = [table(n) for n in range(100, 300, 25)]
    expected = [getattr(estimator, name)(rows) for rows in batches]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(getattr(estimator, name), batches))
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def fit_and_read(estimator, X, name):
    return getattr(fit(clone(estimator), X), name)(X)


@predictors
def test_row_30_two_workers_fit_as_one(estimator, fitted, X, readers):
    name = readers(estimator)[0]
    one = [getattr(fitted(X[i:]), name)(X[i:]) for i in range(2)]
    jobs = (delayed(fit_and_read)(estimator, X[i:], name) for i in range(2))
    two = Parallel(n_jobs=2, backend="loky", timeout=120)(jobs)
    for got, wanted in zip(two, one, strict=True):
        np.testing.assert_array_equal(got, wanted)


@predictors
def test_row_30_results_travel_with_the_pickle(fitted, X, X_new, readers):
    estimator = fitted(X)
    copy = pickle.loads(pickle.dumps(estimator))
    assert_same(results(copy, X_new, readers), results(estimator, X_new, readers))


def targets(estimator, X):
    """Return targets that follow the first column, whatever X becomes later."""
    first = X[:, 0].astype(float)
    if is_regressor(estimator):
        return first + np.arange(len(first)) % 3
    if is_classifier(estimator):
        return np.where(first > np.median(first), "up", "down")
    return None
