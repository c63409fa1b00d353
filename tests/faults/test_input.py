"""FAULTS.md rows 1, 2, 4, 8, 12 to 18: what comes in at the door."""

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skebm import EnergyOutlierDetector


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_row_01_not_finite_in_fit(estimator, X, dtype, bad):
    X = X.astype(dtype)
    X[3, 1] = bad
    with pytest.raises(ValueError, match="NaN" if np.isnan(bad) else "infinity"):
        estimator.fit(X)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_row_02_not_finite_in_score(estimator, X, readers, bad):
    estimator.fit(X)
    rows = X.copy()
    rows[3, 1] = bad
    for reader in [*readers(estimator), "calibrate"]:
        with pytest.raises(ValueError, match="NaN" if np.isnan(bad) else "infinity"):
            getattr(estimator, reader)(rows)
    assert np.isfinite(estimator.score_samples(X)).all()


def test_row_04_one_row_in_fit(estimator, X):
    with pytest.raises(ValueError, match=r"1 sample|n_samples ?= ?1"):
        estimator.fit(X[:1])


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_row_12_wrong_number_of_columns(estimator, X, readers, columns):
    estimator.fit(X)
    message = f"X has {columns} features, but .* is expecting 3 features"
    for reader in [*readers(estimator), "calibrate"]:
        with pytest.raises(ValueError, match=message):
            getattr(estimator, reader)(np.zeros((5, columns)))


def test_row_13_columns_reordered_or_renamed(estimator, X, readers):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    estimator.fit(frame)
    assert list(estimator.feature_names_in_) == ["a", "b", "c"]
    for wrong in [frame[["b", "a", "c"]], frame.rename(columns={"a": "z"})]:
        for reader in [*readers(estimator), "calibrate"]:
            with pytest.raises(ValueError, match="feature names"):
                getattr(estimator, reader)(wrong)


def test_row_13_columns_reordered_with_a_wrapped_estimator(X):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    detector = EnergyOutlierDetector(GaussianMixture(random_state=0)).fit(frame)
    for reader in ["energy", "predict", "p_values", "explain"]:
        with pytest.raises(ValueError, match="feature names"):
            getattr(detector, reader)(frame[["b", "a", "c"]])


def test_row_14_empty_or_one_dimensional(estimator, X, readers):
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        estimator.fit(np.empty((0, 3)))
    with pytest.raises(ValueError, match=r"0 feature\(s\)"):
        estimator.fit(np.empty((9, 0)))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        estimator.fit(X[:, 0])
    estimator.fit(X)
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


def test_row_15_strings(estimator, X, readers):
    words = X.astype(object)
    words[4, 1] = "seven"
    with pytest.raises(ValueError, match="could not convert string to float"):
        estimator.fit(words)
    estimator.fit(X.astype(object))
    for reader in readers(estimator):
        with pytest.raises(ValueError, match="could not convert string to float"):
            getattr(estimator, reader)(words)


def test_row_15_objects_that_are_numbers(estimator, X):
    as_objects = estimator.fit(X.astype(object)).score_samples(X.astype(object))
    np.testing.assert_array_equal(as_objects, estimator.fit(X).score_samples(X))


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


@pytest.mark.parametrize("kind", ["float16", "int8", "uint8", "int64", "bool"])
def test_row_16_other_number_types_are_upcast(estimator, rng, readers, kind):
    X = (3 * rng.normal(size=(60, 4)) + 4).clip(0, 100).astype(kind)
    wide = X.astype(np.float64)
    scores = estimator.fit(X).score_samples(X)
    np.testing.assert_array_equal(scores, estimator.fit(wide).score_samples(wide))
    for reader in readers(estimator):
        assert np.isfinite(getattr(estimator, reader)(X[:3])).all()


def test_row_17_memory_layout(estimator, X, dtype):
    X = X.astype(dtype)
    wide = np.zeros((len(X), 6), dtype)
    wide[:, ::2] = X
    layouts = [np.asfortranarray(X), wide[:, ::2], X[::-1, ::-1].copy()[::-1, ::-1]]
    scores = estimator.fit(X).score_samples(X)
    for rows in layouts:
        assert not rows.flags.c_contiguous
        np.testing.assert_array_equal(estimator.score_samples(rows), scores)
    for rows in layouts:
        np.testing.assert_array_equal(estimator.fit(rows).score_samples(X), scores)


def test_row_18_read_only_memory_map(estimator, X, dtype, tmp_path, readers):
    X = X.astype(dtype)
    expected = estimator.fit(X).score_samples(X)
    path = tmp_path / "X.joblib"
    joblib.dump(X, path)
    before = path.read_bytes()
    rows = joblib.load(path, mmap_mode="r")
    assert not rows.flags.writeable
    np.testing.assert_array_equal(estimator.fit(rows).score_samples(rows), expected)
    for reader in readers(estimator):
        getattr(estimator, reader)(rows[:5])
    assert path.read_bytes() == before


def test_input_is_never_written(estimator, X, readers):
    before = X.copy()
    estimator.fit(X)
    for reader in readers(estimator):
        getattr(estimator, reader)(X)
    np.testing.assert_array_equal(X, before)


def test_y_is_ignored(estimator, X):
    expected = estimator.fit(X).score_samples(X)
    for y in [np.arange(len(X)), ["a"] * len(X), np.full(len(X), np.nan)]:
        np.testing.assert_array_equal(estimator.fit(X, y).score_samples(X), expected)
        assert len(estimator.fit_predict(X, y)) == len(X)
