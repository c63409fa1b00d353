"""FAULTS.md rows 19 to 26: parameters, order, seeds, global state, interrupts."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.utils import get_tags
from tables import draws, far_row, fit, typical_row, with_holes
from watch import global_state, stop_training, told_by

from skebm import EnergyOutlierDetector
from skebm.energies import LocalMemory, MemoryBag
from skebm.exceptions import InterruptedFitWarning

densities = pytest.mark.estimators("density")
tables = pytest.mark.estimators("table")
in_epochs = pytest.mark.estimators("density", "epochs")

BAD_VALUES = {
    "alpha": [-1.0, "some", None],
    "tol": [0, -1.0, None],
    "window": [-1, 2.5, None],
    "contamination": [0, -0.1, 0.51, 1, "some", None],
    "estimator": [3, "kde", object()],
    "novelty": ["yes", 2, None],
    "max_memory": [1, 0, -3, 2.5, "all"],
    "energy": [3, None, "nonsense", object()],
    "objective": [3, None, "nonsense"],
    "sampler": [3, None, "nonsense"],
    "normalizer": [3, "nonsense"],
    "base": [3, "nonsense"],
    "max_iter": [0, -3, 2.5, "many"],
    "n_components": [-1, 2.5, "many", None],
    "n_iter": [-1, 2.5, "many", None],
    "n_projection": [0, 2.5, None],
    "augmentation": [3, None, "nonsense"],
    "passthrough": ["yes", 2, None],
    "temperature": [0, -1.0, None],
    "binarize": ["yes", np.inf],
    "verbose": [-1, "loud"],
    "batch_size": [0, -1, 2.5, None],
    "learning_rate": [0, -1.0, "large", None],
    "weight_decay": [-0.1, "large", None],
    "prediction": ["best", None],
    "hidden": [0, -1, 2.5, "wide", None],
    "tilt": ["some", 2.5, None],
    "n_tilts": [0, 2.5, None],
    "n_members": [1, 2.5, None],
    "calibration": ["some", 2.5],
    "early_stopping": ["yes", 2, None],
    "validation_fraction": [0.0, 1.0, -0.1, None],
    "checkpoint": [3, 0.5],
    "estimators": [3, None, "kde"],
    "weights": [3, "equal"],
    "cv": [1, 0.0, 1.0, -2, "five"],
    "device": [3, None],
    "random_state": [-1, "seed", 0.5],
}


@pytest.mark.estimators("density", "trained")
@pytest.mark.parametrize("rate", [1e4, 1e8, 1e30])
def test_row_19_a_diverging_learning_rate(estimator, fitted, X, kind, rate):
    """It is told, or the recipe copes: never finite nonsense in silence."""
    expected = fitted(X).score(X)
    messages = told_by(estimator.set_params(learning_rate=rate).fit, X)
    if messages:
        assert any("learning_rate" in message for message in messages)
        return
    assert estimator.score(X) > expected - 1
    rows = np.vstack([typical_row(kind, X), far_row(kind, X)])
    np.testing.assert_array_equal(estimator.predict(rows), [1, -1])


@pytest.mark.estimators("density", "epochs", "streams")
@pytest.mark.parametrize("rate", [1e4, 1e8, 1e30])
def test_row_19_a_diverging_stream(estimator, X, rate):
    """The model stays that of the last batch before its energies exploded."""
    estimator.set_params(learning_rate=rate)

    def batches(X):
        for _ in range(20):
            estimator.partial_fit(X)

    assert any("learning_rate" in message for message in told_by(batches, X))
    for weight in estimator._stream.rbm.parameters():
        assert weight.isfinite().all()


@tables
def test_row_20_bad_parameter(estimator, X, readers):
    known = BAD_VALUES.keys() & estimator.get_params()
    assert {"device", "random_state"} <= known
    for name in sorted(known):
        for value in BAD_VALUES[name]:
            bad = clone(estimator).set_params(**{name: value})
            message = f"The '{name}' parameter of .* must be"
            with pytest.raises(ValueError, match=message):
                fit(bad, X)
            with pytest.raises(NotFittedError):
                getattr(bad, readers(bad)[0])(X)


@tables
def test_row_20_unknown_device(estimator, X):
    for device in ["nonsense", "cpu:x"]:
        with pytest.raises(ValueError, match=f"device='{device}'"):
            fit(estimator.set_params(device=device), X)


@densities
@pytest.mark.parametrize("q", [0, 1, -0.1, 2, np.nan])
def test_row_20_bad_false_discovery_rate(fitted, X, X_new, q):
    with pytest.raises(ValueError, match=r"q must be in \(0, 1\)"):
        fitted(X).predict_fdr(X_new[:30], q=q)


@densities
def test_row_20_bad_number_of_samples(fitted, X):
    with pytest.raises(ValueError, match="n_samples must be >= 1"):
        fitted(X).sample(0)


def test_row_20_constructor_does_not_judge(estimator):
    for name in estimator.get_params(deep=False):
        estimator.set_params(**{name: "anything"})
        assert estimator.get_params(deep=False)[name] == "anything"


@tables
def test_row_21_not_fitted(estimator, X, readers):
    for reader in readers(estimator):
        with pytest.raises(NotFittedError):
            getattr(estimator, reader)(X)


@densities
def test_row_21_not_fitted_without_rows(estimator, X):
    with pytest.raises(NotFittedError):
        estimator.calibrate(X)
    with pytest.raises(NotFittedError):
        estimator.sample()


@tables
@pytest.mark.estimators("numbers")
def test_row_21_not_fitted_after_a_failed_fit(estimator, X, readers):
    labels = np.repeat(["up", "down"], [4, 5])
    for wrong in [X[:1], np.full((9, 3), np.nan), X[:9].astype(str) + "x"]:
        with pytest.raises(ValueError, match=r"sample|NaN|convert|class"):
            estimator.fit(wrong, labels[: len(wrong)])
        with pytest.raises(NotFittedError):
            getattr(estimator, readers(estimator)[0])(X)


@tables
def test_row_22_same_seed_same_fit(estimator, fitted, X, X_new, readers):
    expected = fitted(X)
    for _ in range(2):
        fit(estimator, X)
        for reader in readers(expected):
            np.testing.assert_array_equal(
                getattr(estimator, reader)(X_new), getattr(expected, reader)(X_new)
            )
        if hasattr(expected, "sample"):
            np.testing.assert_array_equal(draws(estimator, X, 5), draws(expected, X, 5))
        assert vars(estimator).get("offset_") == vars(expected).get("offset_")


@densities
def test_row_22_refit_forgets(estimator, fitted, X, X_new):
    """A fit on other rows, other columns or after calibrate leaves no trace."""
    expected = fitted(X)
    estimator.fit(X_new[:, :2]).calibrate(X_new[:25, :2])
    estimator.fit(X)
    np.testing.assert_array_equal(estimator.energy(X_new), expected.energy(X_new))
    np.testing.assert_array_equal(estimator.p_values(X), expected.p_values(X))
    assert estimator.n_features_in_ == 3
    assert estimator.offset_ == expected.offset_


@tables
def test_row_22_reading_changes_nothing(fitted, X, X_new, readers):
    estimator = fitted(X)
    before = pickle.dumps(estimator)
    for reader in readers(estimator):
        first = np.asarray(getattr(estimator, reader)(X_new))
        np.testing.assert_array_equal(getattr(estimator, reader)(X_new), first)
    if hasattr(estimator, "sample"):
        draws(estimator, X, 3)
    assert pickle.dumps(estimator) == before


@tables
def test_row_23_global_state(estimator, X, readers):
    before = global_state()
    fresh = fit(type(estimator)(**estimator.get_params(deep=False)), X)
    for reader in readers(fresh):
        getattr(fresh, reader)(X)
    if hasattr(fresh, "sample"):
        draws(fresh, X, 3)
    if hasattr(fresh, "calibrate"):
        fresh.calibrate(X[:30])
    pickle.loads(pickle.dumps(fresh))
    after = global_state()
    for what, value in before.items():
        assert after[what] == value, what


@densities
def test_row_23_fit_does_not_read_the_global_seeds(estimator, fitted, X):
    expected = fitted(X).score_samples(X)
    state = torch.get_rng_state()
    try:
        torch.manual_seed(99)
        np.testing.assert_array_equal(estimator.fit(X).score_samples(X), expected)
    finally:
        torch.set_rng_state(state)


def test_row_23_import_changes_nothing():
    script = (
        "import os, random, sys, warnings, numpy as np, torch, sklearn.callback\n"
        "def state():\n"
        "    return (str(np.random.get_state()), random.getstate(),\n"
        "        torch.get_rng_state().tolist(), torch.get_num_threads(),\n"
        "        torch.get_float32_matmul_precision(), torch.get_default_dtype(),\n"
        "        dict(os.environ), np.geterr(), list(warnings.filters))\n"
        "before = state()\n"
        "import skebm\n"
        "sys.exit(before != state())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=120, check=False)
    assert done.returncode == 0


@densities
@pytest.mark.parametrize("width", [1, 3, 5, 10, 17])
@pytest.mark.parametrize("n", [20, 150])
def test_row_24_row_independence(estimator, table, rng, dtype, n, width):
    """A row's score is the same alone, in any order and in any batch, bit for bit."""
    X = table(n, width).astype(dtype)
    fresh = table(281, width).astype(dtype)
    if get_tags(estimator).input_tags.allow_nan:
        fresh = with_holes(rng, fresh)
    rows = np.vstack([fresh[:270], X[:7], fresh[270:]])
    scores = estimator.fit(X).score_samples(rows)
    alone = [estimator.score_samples(rows[i : i + 1])[0] for i in range(0, 280, 28)]
    np.testing.assert_array_equal(alone, scores[range(0, 280, 28)])
    order = rng.permutation(len(rows))
    np.testing.assert_array_equal(estimator.score_samples(rows[order]), scores[order])
    for size, stop in [(3, 60), (64, 288), (100, 288)]:
        parts = [rows[i : i + size] for i in range(0, stop, size)]
        batched = np.concatenate([estimator.score_samples(part) for part in parts])
        np.testing.assert_array_equal(batched, scores[:stop])


def test_row_24_training_rows_meet_the_same_arithmetic(rng, dtype):
    """With novelty=True they are new rows, which meet one row more than they did."""
    X = rng.normal(size=(90, 5)).astype(dtype)
    estimator = EnergyOutlierDetector(random_state=0).fit(X)
    np.testing.assert_array_equal(
        np.sort(estimator.energy(X)), estimator.calibration_energy_
    )


@in_epochs
def test_row_25_ctrl_c_keeps_the_last_whole_epoch(
    monkeypatch, estimator, X, X_new, kind, readers
):
    steps = stop_training(monkeypatch, KeyboardInterrupt, at_step=11)
    estimator.set_params(n_iter=5, batch_size=25)
    with pytest.warns(InterruptedFitWarning, match="epoch 2") as caught:
        assert estimator.fit(X) is estimator
    assert caught[0].filename == __file__
    assert len(steps) == 11
    assert estimator.n_iter_ == 2
    for reader in readers(estimator):
        assert np.isfinite(getattr(estimator, reader)(X_new)).all()
    assert estimator.predict(far_row(kind, X))[0] == -1
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(estimator)).energy(X_new), estimator.energy(X_new)
    )


@pytest.mark.estimators("density", "epochs", "resumes")
def test_row_26_a_killed_fit_goes_on_from_its_checkpoint(
    monkeypatch, estimator, X, tmp_path
):
    """A second fit starts from the file of a killed one and ends at the same bits."""
    estimator.set_params(n_iter=5, batch_size=25)
    expected = clone(estimator).fit(X)
    estimator.set_params(checkpoint=tmp_path / "fit")
    with monkeypatch.context() as patch:
        stop_training(patch, MemoryError, at_step=11)
        with pytest.raises(MemoryError):
            estimator.fit(X)
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]
    steps = stop_training(monkeypatch, None, at_step=None)
    estimator.fit(X)
    assert len(steps) == 3 * 4
    np.testing.assert_array_equal(estimator.energy(X), expected.energy(X))
    np.testing.assert_array_equal(estimator.sample(5), expected.sample(5))
    assert estimator.log_partition_ == expected.log_partition_
    assert estimator.history_["loss"].tolist() == expected.history_["loss"].tolist()


def interrupt_once(monkeypatch, where):
    """Let ``where.store`` raise KeyboardInterrupt when it is first called."""
    store, calls = where.store, []

    def interrupted(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return store(self, *args, **kwargs)

    monkeypatch.setattr(where, "store", interrupted)
    return calls


@pytest.mark.parametrize(
    ("where", "novelty"),
    [(LocalMemory, True), (LocalMemory, False), (MemoryBag, False)],
)
def test_row_25_ctrl_c_in_fit(monkeypatch, X, X_new, readers, where, novelty):
    monkeypatch.setattr("skebm.estimators.outlier.AFTER_INTERRUPT", 40)
    calls = interrupt_once(monkeypatch, where)
    detector = EnergyOutlierDetector(novelty=novelty, random_state=0)
    with pytest.warns(InterruptedFitWarning, match="keeps 40 of 90 rows") as caught:
        assert detector.fit(X) is detector
    assert caught[0].filename == __file__
    assert len(calls) > 1
    assert np.isfinite(detector.offset_)
    assert len(detector.calibration_energy_) == 40
    for reader in readers(detector):
        assert np.isfinite(getattr(detector, reader)(X_new)).all()
    assert detector.predict([[1e6, 0, 0]])[0] == -1
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(detector)).energy(X_new), detector.energy(X_new)
    )


def test_row_25_second_ctrl_c_ends_fit(monkeypatch, X):
    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalMemory, "store", interrupted)
    detector = EnergyOutlierDetector(random_state=0)
    with (
        pytest.warns(InterruptedFitWarning),
        pytest.raises(KeyboardInterrupt),
    ):
        detector.fit(X)
    with pytest.raises(NotFittedError):
        detector.predict(X)


def test_row_25_ctrl_c_in_a_second_fit(monkeypatch, X):
    """The first fit is gone or as it was; nothing in between."""
    detector = EnergyOutlierDetector(GaussianMixture(random_state=0), random_state=0)
    expected = detector.fit(X).decision_function(X)
    fit, calls = GaussianMixture.fit, []

    def interrupted(self, X, y=None):
        calls.append(self)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(self, X, y)

    monkeypatch.setattr(GaussianMixture, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(X + 9)
    try:
        scores = detector.decision_function(X)
    except NotFittedError:
        return
    np.testing.assert_array_equal(scores, expected)


def test_row_25_ctrl_c_in_the_fit_of_a_wrapped_estimator(monkeypatch, X):
    """There is no model to keep: the interrupt goes on, and nothing is fitted."""

    def interrupted(self, X, y=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(GaussianMixture, "fit", interrupted)
    detector = EnergyOutlierDetector(GaussianMixture(), random_state=0)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(X)
    with pytest.raises(NotFittedError):
        detector.predict(X)
