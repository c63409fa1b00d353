"""FAULTS.md rows 1, 2, 4, 7, 12 to 18: what comes in at the door."""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tables import far_row, fit, strict, with_holes

from skebm import EnergyOutlierDetector
from skebm.exceptions import DataDomainError

tables = pytest.mark.estimators("table")
discrete = pytest.mark.estimators("table", "discrete")
missing = pytest.mark.estimators("density", "missing")


def every_reader(estimator, readers):
    """Return all methods that map rows to something."""
    return [r for r in [*readers(estimator), "calibrate"] if hasattr(estimator, r)]


@pytest.mark.estimators("table", "complete")
def test_row_01_nan_in_fit(estimator, X, dtype):
    X = X.astype(dtype)
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fit(estimator, X)


@tables
@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_row_01_infinity_in_fit(estimator, X, dtype, bad):
    X = X.astype(dtype)
    X[3, 1] = bad
    with pytest.raises(ValueError, match="infinity"):
        fit(estimator, X)


@missing
def test_row_01_nan_in_fit_is_masked(estimator, X, X_new, rng, dtype, readers):
    holes = with_holes(rng, X.astype(dtype))
    estimator.fit(holes)
    for reader in readers(estimator):
        assert np.isfinite(getattr(estimator, reader)(X_new.astype(dtype))).all()
    assert np.isfinite(estimator.sample(5)).all()


@missing
def test_row_01_a_column_of_nothing_but_nan(estimator, X):
    X[:, 1] = np.nan
    with pytest.raises(ValueError, match=r"Columns \[1\].*nothing but NaN"):
        estimator.fit(X)


@pytest.mark.estimators("table", "complete")
def test_row_02_nan_in_score(fitted, X, readers):
    estimator, rows = fitted(X), X.copy()
    rows[3, 1] = np.nan
    for reader in every_reader(estimator, readers):
        with pytest.raises(ValueError, match="NaN"):
            getattr(estimator, reader)(rows)


@tables
@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_row_02_infinity_in_score(fitted, X, readers, bad):
    estimator, rows = fitted(X), X.copy()
    rows[3, 1] = bad
    for reader in every_reader(estimator, readers):
        with pytest.raises(ValueError, match="infinity"):
            getattr(estimator, reader)(rows)


@missing
def test_row_02_nan_in_score_is_summed_out(fitted, X, X_new, rng, readers):
    """A row without a value has probability 1; complete rows do not notice."""
    estimator, rows = fitted(X), with_holes(rng, X_new)
    for reader in readers(estimator):
        assert np.isfinite(getattr(estimator, reader)(rows)).all()
    np.testing.assert_array_equal(
        estimator.score_samples(rows)[::2], estimator.score_samples(X_new[::2])
    )
    nothing = np.full((1, 3), np.nan)
    assert estimator.score_samples(nothing)[0] == pytest.approx(0.0, abs=1e-5)


@missing
def test_row_02_a_missing_value_cannot_make_a_row_stranger(fitted, X, kind):
    """p(some entries) is a sum of p(all of them), so it is larger, in bits at least."""
    estimator, rows = fitted(X), np.repeat(far_row(kind, X), 4, axis=0)
    rows[range(1, 4), range(3)] = np.nan
    scores = estimator.score_samples(rows)
    assert np.all(scores[1:] > scores[0])


@tables
def test_row_04_one_row_in_fit(estimator, X):
    with pytest.raises(ValueError, match=r"1 sample|n_samples ?= ?1|one class"):
        fit(estimator, X[:1])


@discrete
@pytest.mark.parametrize("value", [-1.0, 1e30, -1e300])
@pytest.mark.estimators("numbers")
def test_row_07_a_value_outside_the_domain(estimator, X, readers, value):
    """Refused in `fit` and by every reader; a large value is never a normal one."""
    strict(estimator)
    rows = X.copy()
    rows[3, 1] = value
    with pytest.raises(DataDomainError, match=type(estimator).__name__):
        fit(estimator, rows)
    fit(estimator, X)
    for reader in every_reader(estimator, readers):
        with pytest.raises(DataDomainError, match=type(estimator).__name__):
            getattr(estimator, reader)(rows)


@pytest.mark.estimators("density", "bits")
@pytest.mark.parametrize("value", [1e-310, 3.0, 1e30, 1.7e308])
def test_row_07_binarized_values_are_bits(estimator, X, value):
    """So no scale of X matters, which is why rows 6, 8 and 9 ask nothing of bits."""
    energy = estimator.set_params(binarize=0.0).fit(X).energy(X)
    large = np.where(X > 0, value, -value)
    np.testing.assert_array_equal(estimator.fit(large).energy(large), energy)


@tables
@pytest.mark.parametrize("columns", [1, 2, 4])
def test_row_12_wrong_number_of_columns(fitted, X, readers, columns):
    estimator = fitted(X)
    message = f"X has {columns} features, but .* is expecting 3 features"
    for reader in every_reader(estimator, readers):
        with pytest.raises(ValueError, match=message):
            getattr(estimator, reader)(np.zeros((5, columns)))


@tables
def test_row_13_columns_reordered_or_renamed(estimator, X, readers):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    fit(estimator, frame)
    assert list(estimator.feature_names_in_) == ["a", "b", "c"]
    for wrong in [frame[["b", "a", "c"]], frame.rename(columns={"a": "z"})]:
        for reader in every_reader(estimator, readers):
            with pytest.raises(ValueError, match="feature names"):
                getattr(estimator, reader)(wrong)


def test_row_13_columns_reordered_with_a_wrapped_estimator(X):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    detector = EnergyOutlierDetector(GaussianMixture(random_state=0)).fit(frame)
    for reader in ["energy", "predict", "p_values", "explain"]:
        with pytest.raises(ValueError, match="feature names"):
            getattr(detector, reader)(frame[["b", "a", "c"]])


@tables
def test_row_14_empty_or_one_dimensional(estimator, fitted, X, readers):
    labels = np.repeat(["up", "down"], [4, 5])
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        estimator.fit(np.empty((0, 3)), labels[:0])
    with pytest.raises(ValueError, match=r"0 feature\(s\)"):
        estimator.fit(np.empty((9, 0)), labels)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        estimator.fit(X[:9, 0], labels)
    estimator = fitted(X)
    for reader in readers(estimator):
        with pytest.raises(ValueError, match=r"0 sample\(s\)"):
            getattr(estimator, reader)(X[:0])
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
            getattr(estimator, reader)(X[0])


def test_row_14_empty_or_one_dimensional_with_a_wrapped_estimator(X):
    detector = EnergyOutlierDetector(GaussianMixture(random_state=0))
    for wrong in [X[:0], X[:, 0], X[:1]]:
        with pytest.raises(ValueError, match=r"sample|1D array"):
            detector.fit(wrong)


@tables
@pytest.mark.estimators("numbers")
def test_row_15_strings(estimator, fitted, X, readers):
    words, labels = X.astype(object), np.repeat(["up", "down"], len(X) // 2)
    words[4, 1] = "seven"
    with pytest.raises(ValueError, match="could not convert string to float"):
        estimator.fit(words, labels)
    estimator = fitted(X)
    for reader in readers(estimator):
        with pytest.raises(ValueError, match="could not convert string to float"):
            getattr(estimator, reader)(words)


@tables
def test_row_15_objects_that_are_numbers(estimator, fitted, X, readers):
    expected = fitted(X)
    fit(estimator, X.astype(object))
    for reader in readers(estimator):
        np.testing.assert_array_equal(
            getattr(estimator, reader)(X.astype(object)), getattr(expected, reader)(X)
        )


def test_row_15_unseen_category_with_an_encoder(rng):
    frame = pd.DataFrame({"x": rng.normal(size=60), "c": rng.choice(["a", "b"], 60)})
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["c"]),
        (StandardScaler(), ["x"]),
    )
    density = make_pipeline(encoder, GaussianMixture(random_state=0))
    detector = EnergyOutlierDetector(density, random_state=0).fit(frame)
    unseen = pd.DataFrame({"x": [0.0, 0.0], "c": ["a", "unseen"]})
    seen, new = detector.energy(unseen)
    assert np.isfinite([seen, new]).all()
    assert new > seen


@pytest.mark.estimators("density", "real")
@pytest.mark.parametrize("number", ["float16", "int8", "uint8", "int64", "bool"])
def test_row_16_other_number_types_are_upcast(estimator, rng, readers, number):
    X = (3 * rng.normal(size=(60, 4)) + 4).clip(0, 100).astype(number)
    wide = X.astype(np.float64)
    scores = estimator.fit(X).score_samples(X)
    np.testing.assert_array_equal(scores, estimator.fit(wide).score_samples(wide))
    for reader in readers(estimator):
        assert np.isfinite(getattr(estimator, reader)(X[:3])).all()


@discrete
@pytest.mark.parametrize("number", ["float16", "int8", "uint8", "int64", "bool"])
def test_row_16_other_types_of_codes_are_upcast(estimator, X, kind, readers, number):
    X = X.clip(0, 1) if number == "bool" else X
    expected = fit(strict(clone(estimator)), X)
    fit(strict(estimator), X.astype(number))
    for reader in readers(estimator):
        np.testing.assert_array_equal(
            getattr(estimator, reader)(X.astype(number)), getattr(expected, reader)(X)
        )


@pytest.mark.estimators("table", "bits")
def test_row_16_eight_bit_images_are_no_bits(estimator, X, rng):
    image = rng.integers(0, 128, size=(60, 3)).astype(np.int8)
    message = r"needs X in \[0, 1\]; got values in \[0, 127\]. Pass binarize="
    image[0, 0] = 127
    with pytest.raises(DataDomainError, match=message):
        fit(strict(estimator), image)


@tables
def test_row_17_memory_layout(estimator, fitted, X, dtype, readers):
    X = X.astype(dtype)
    wide = np.zeros((len(X), 6), dtype)
    wide[:, ::2] = X
    layouts = [np.asfortranarray(X), wide[:, ::2], X[::-1, ::-1].copy()[::-1, ::-1]]
    expected = fitted(X)
    reader = readers(expected)[0]
    values = getattr(expected, reader)(X)
    for rows in layouts:
        assert not rows.flags.c_contiguous
        np.testing.assert_array_equal(getattr(expected, reader)(rows), values)
    for rows in layouts:
        np.testing.assert_array_equal(getattr(fit(estimator, rows), reader)(X), values)


@tables
def test_row_18_read_only_memory_map(estimator, fitted, X, dtype, tmp_path, readers):
    X = X.astype(dtype)
    reader = readers(estimator)[0]
    expected = getattr(fitted(X), reader)(X)
    path = tmp_path / "X.joblib"
    joblib.dump(X, path)
    before = path.read_bytes()
    rows = joblib.load(path, mmap_mode="r")
    assert not rows.flags.writeable
    values = getattr(fit(estimator, rows), reader)(rows)
    np.testing.assert_array_equal(values, expected)
    for reader in readers(estimator):
        getattr(estimator, reader)(rows[:5])
    assert path.read_bytes() == before


@tables
def test_input_is_never_written(estimator, X, readers):
    before = X.copy()
    fit(estimator, X)
    for reader in readers(estimator):
        getattr(estimator, reader)(X)
    np.testing.assert_array_equal(X, before)


@pytest.mark.estimators("density")
def test_y_is_ignored(estimator, fitted, X):
    expected = fitted(X).score_samples(X)
    for y in [["a"] * len(X), np.full(len(X), np.nan)]:
        np.testing.assert_array_equal(estimator.fit(X, y).score_samples(X), expected)
    assert len(estimator.fit_predict(X, np.arange(len(X)))) == len(X)
