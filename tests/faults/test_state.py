"""FAULTS.md rows 20 to 25: parameters, order, seeds, global state, Ctrl-C.

Row 19, a diverging learning rate, does not apply: no estimator here has one.
"""

import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture

from skebm import EnergyOutlierDetector
from skebm.energies import LocalMemory, MemoryBag
from skebm.exceptions import InterruptedFitWarning

BAD_VALUES = {
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
    "batch_size": [0, -1, 2.5, None],
    "learning_rate": [0, -1.0, "large", None],
    "early_stopping": ["yes", 2, None],
    "validation_fraction": [0.0, 1.0, -0.1, None],
    "checkpoint": [3, 0.5],
    "estimators": [3, None, "kde"],
    "weights": [3, "equal"],
    "cv": [1, 0.0, 1.0, -2, "five"],
    "device": [3, None],
    "random_state": [-1, "seed", 0.5],
}


def global_state():
    """Return what a library must leave as it was."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "numpy": (kind, keys.tobytes(), *rest),
        "numpy errors": np.geterr(),
        "random": random.getstate(),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "environment": dict(os.environ),
    }


def test_row_20_bad_parameter(estimator, X):
    known = BAD_VALUES.keys() & estimator.get_params()
    assert {"device", "random_state"} <= known
    for name in sorted(known):
        for value in BAD_VALUES[name]:
            bad = clone(estimator).set_params(**{name: value})
            message = f"The '{name}' parameter of .* must be"
            with pytest.raises(ValueError, match=message):
                bad.fit(X)
            with pytest.raises(NotFittedError):
                bad.predict(X)


def test_row_20_unknown_device(estimator, X):
    for device in ["nonsense", "cpu:x"]:
        with pytest.raises(ValueError, match=f"device='{device}'"):
            estimator.set_params(device=device).fit(X)


@pytest.mark.parametrize("q", [0, 1, -0.1, 2, np.nan])
def test_row_20_bad_false_discovery_rate(estimator, X, q):
    with pytest.raises(ValueError, match=r"q must be in \(0, 1\)"):
        estimator.fit(X).predict_fdr(X, q=q)


def test_row_20_bad_number_of_samples(estimator, X):
    with pytest.raises(ValueError, match="n_samples must be >= 1"):
        estimator.fit(X).sample(0)


def test_row_20_constructor_does_not_judge(estimator):
    for name in estimator.get_params(deep=False):
        estimator.set_params(**{name: "anything"})
        assert estimator.get_params(deep=False)[name] == "anything"


def test_row_21_not_fitted(estimator, X, readers):
    for reader in [*readers(estimator), "calibrate"]:
        with pytest.raises(NotFittedError):
            getattr(estimator, reader)(X)
    with pytest.raises(NotFittedError):
        estimator.sample()


def test_row_21_not_fitted_after_a_failed_fit(estimator, X):
    for wrong in [X[:1], np.full((9, 3), np.nan), X.astype(str) + "x"]:
        with pytest.raises(ValueError, match=r"sample|NaN|convert"):
            estimator.fit(wrong)
        with pytest.raises(NotFittedError):
            estimator.predict(X)


def test_row_22_same_seed_same_fit(estimator, X, X_new, readers):
    first, other = estimator.fit(X), clone(estimator).fit(X)
    expected = {r: np.asarray(getattr(first, r)(X_new)) for r in readers(first)}
    rows = first.sample(5)
    again = first.fit(X)
    for reader, values in expected.items():
        np.testing.assert_array_equal(getattr(again, reader)(X_new), values)
        np.testing.assert_array_equal(getattr(other, reader)(X_new), values)
    np.testing.assert_array_equal(again.sample(5), rows)
    np.testing.assert_array_equal(other.sample(5), rows)
    assert again.offset_ == other.offset_


def test_row_22_refit_forgets(estimator, X, X_new):
    """A fit on other rows, other columns or after calibrate leaves no trace."""
    expected = clone(estimator).fit(X)
    estimator.fit(X_new[:, :2]).calibrate(X_new[:25, :2])
    estimator.fit(X)
    np.testing.assert_array_equal(estimator.energy(X_new), expected.energy(X_new))
    np.testing.assert_array_equal(estimator.p_values(X), expected.p_values(X))
    assert estimator.n_features_in_ == 3
    assert estimator.offset_ == expected.offset_


def test_row_22_reading_changes_nothing(estimator, X, X_new, readers):
    before = pickle.dumps(estimator.fit(X))
    for reader in readers(estimator):
        first = np.asarray(getattr(estimator, reader)(X_new))
        np.testing.assert_array_equal(getattr(estimator, reader)(X_new), first)
    estimator.sample(3)
    assert pickle.dumps(estimator) == before


def test_row_23_global_state(estimator, X, readers):
    before = global_state()
    fresh = type(estimator)(**estimator.get_params(deep=False)).fit(X)
    for reader in readers(fresh):
        getattr(fresh, reader)(X)
    fresh.sample(3)
    fresh.calibrate(X[:30])
    pickle.loads(pickle.dumps(fresh))
    after = global_state()
    for what, value in before.items():
        assert after[what] == value, what


def test_row_23_fit_does_not_read_the_global_seeds(estimator, X):
    expected = estimator.fit(X).score_samples(X)
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


@pytest.mark.parametrize("width", [1, 3, 5, 10, 17])
@pytest.mark.parametrize("n", [20, 150])
def test_row_24_row_independence(estimator, rng, dtype, n, width):
    """A row's score is the same alone, in any order and in any batch, bit for bit."""
    X = rng.normal(size=(n, width)).astype(dtype)
    fresh = rng.normal(size=(281, width)).astype(dtype)
    rows = np.vstack([fresh[:270], X[:7], fresh[270:]])
    scores = estimator.fit(X).score_samples(rows)
    alone = [estimator.score_samples(rows[i : i + 1])[0] for i in range(0, 280, 28)]
    np.testing.assert_array_equal(alone, scores[range(0, 280, 28)])
    order = rng.permutation(len(rows))
    np.testing.assert_array_equal(estimator.score_samples(rows[order]), scores[order])
    for size in [3, 64, 100]:
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        batched = np.concatenate([estimator.score_samples(part) for part in parts])
        np.testing.assert_array_equal(batched, scores)


@pytest.mark.parametrize("novelty", [True, False])
def test_row_24_training_rows_meet_the_same_arithmetic(novelty, rng, dtype):
    X = rng.normal(size=(90, 5)).astype(dtype)
    estimator = EnergyOutlierDetector(novelty=novelty, random_state=0).fit(X)
    np.testing.assert_array_equal(
        np.sort(estimator.energy(X)), estimator.calibration_energy_
    )


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
