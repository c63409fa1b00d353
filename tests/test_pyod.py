import pickle
import random
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytest.importorskip("pyod")

from pyod.models.base import BaseDetector
from pyod.models.lscp import LSCP
from pyod.utils.utility import standardizer

from skebm import EnergyOutlierDetector
from skebm.pyod import PyODDetector, to_pyod

ESTIMATORS = {
    "energy": EnergyOutlierDetector(random_state=0),
    "energy, clean": EnergyOutlierDetector(novelty=True, random_state=0),
    "pipeline": make_pipeline(StandardScaler(), EnergyOutlierDetector(random_state=0)),
    "forest": IsolationForest(n_estimators=20, random_state=0),
    "factor": LocalOutlierFactor(novelty=True),
    "density": GaussianMixture(random_state=0),
}


@pytest.fixture(params=ESTIMATORS)
def estimator(request):
    return ESTIMATORS[request.param]


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    far = rng.normal(size=(10, 3))
    far *= np.linspace(12, 30, 10)[:, None] / np.linalg.norm(far, axis=1)[:, None]
    return np.vstack([rng.normal(size=(190, 3)), far])


def test_fit_and_threshold(estimator, X):
    detector = to_pyod(estimator, contamination=0.05)
    assert isinstance(detector, BaseDetector)
    assert detector.fit(X) is detector
    own = clone(estimator).fit(X)
    np.testing.assert_array_equal(detector.decision_scores_, -own.score_samples(X))
    np.testing.assert_array_equal(
        detector.decision_function(X[:7]), -own.score_samples(X[:7])
    )
    assert detector.threshold_ == np.percentile(detector.decision_scores_, 95)
    assert set(np.flatnonzero(detector.labels_)) == set(range(190, 200))


def test_predictions(estimator, X):
    detector = to_pyod(estimator, contamination=0.05).fit(X)
    far, near = np.full((1, 3), 40.0), np.zeros((1, 3))
    rows = np.vstack([near, far])
    np.testing.assert_array_equal(detector.predict(rows), [0, 1])
    for method in ("linear", "unify"):
        proba = detector.predict_proba(rows, method=method)
        np.testing.assert_allclose(proba.sum(axis=1), 1)
        assert proba[0, 1] < 0.5 < proba[1, 1]
    confidence = detector.predict_confidence(rows)
    assert confidence.shape == (2,)
    assert np.all((confidence >= 0) & (confidence <= 1))
    labels, _ = detector.predict(rows, return_confidence=True)
    np.testing.assert_array_equal(labels, [0, 1])


def test_params_clone_and_repr():
    estimator = EnergyOutlierDetector(random_state=3)
    detector = to_pyod(estimator, contamination=0.2)
    params = detector.get_params()
    assert params["contamination"] == 0.2
    assert params["estimator"] is estimator
    assert params["estimator__random_state"] == 3
    copy = clone(detector)
    assert copy is not detector
    assert copy.contamination == 0.2
    copy.set_params(contamination=0.3, estimator__novelty=True)
    assert (copy.contamination, copy.estimator.novelty) == (0.3, True)
    assert (detector.contamination, estimator.novelty) == (0.2, False)
    assert repr(detector).startswith("PyODDetector(contamination=0.2")


def test_set_params_reaches_the_next_fit(X):
    detector = to_pyod(GaussianMixture(random_state=0))
    detector.set_params(estimator__n_components=3, contamination=0.25).fit(X)
    assert detector.detector_.n_components == 3
    assert detector.labels_.sum() == 50


def test_fitted_estimator_is_cloned_and_refitted(X):
    fitted = GaussianMixture(random_state=0).fit(X + 100)
    means = fitted.means_.copy()
    detector = to_pyod(fitted).fit(X)
    np.testing.assert_array_equal(fitted.means_, means)
    np.testing.assert_allclose(detector.detector_.means_[0], X.mean(axis=0))


def test_frozen_estimator_is_kept(X):
    fitted = GaussianMixture(random_state=0).fit(X[:150])
    detector = to_pyod(FrozenEstimator(fitted)).fit(X[150:])
    np.testing.assert_array_equal(
        detector.decision_scores_, -fitted.score_samples(X[150:])
    )


def test_global_random_state_is_untouched(X):
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    to_pyod(EnergyOutlierDetector(random_state=0)).fit(X[:50]).predict(X[:3])
    after = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert before == after


def test_pickle_and_frames(X):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    detector = to_pyod(EnergyOutlierDetector(random_state=0)).fit(frame)
    loaded = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(
        loaded.decision_function(frame), detector.decision_scores_
    )
    with pytest.raises(ValueError, match="feature names"):
        detector.decision_function(frame[["c", "b", "a"]])


def test_inside_a_pyod_ensemble(X):
    bases = [IsolationForest(n_estimators=n, random_state=0) for n in (10, 15)]
    ensemble = LSCP([to_pyod(base) for base in bases], random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LSCP's own
        ensemble.fit(standardizer(X))
    assert ensemble.labels_[190:].all()


def test_y_is_ignored(X):
    detector = to_pyod(GaussianMixture(random_state=0)).fit(X, np.arange(len(X)) % 3)
    assert detector.predict_proba(X).shape == (len(X), 2)


@pytest.mark.parametrize("contamination", [0, -0.1, 0.6, "auto", None, np.nan])
def test_contamination_out_of_range(contamination, X):
    with pytest.raises(ValueError, match="contamination must be in"):
        to_pyod(IsolationForest(), contamination=contamination)
    detector = to_pyod(IsolationForest()).set_params(contamination=contamination)
    with pytest.raises(ValueError, match="contamination must be in"):
        detector.fit(X)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (IsolationForest, "IsolationForest"),
        (LocalOutlierFactor(), "LocalOutlierFactor"),
        (StandardScaler(), "StandardScaler"),
        (None, "NoneType"),
    ],
)
def test_needs_score_samples(value, name, X):
    with pytest.raises(TypeError, match=f"score_samples.*got {name}"):
        to_pyod(value)
    with pytest.raises(TypeError, match=f"score_samples.*got {name}"):
        PyODDetector(value).fit(X)


def test_not_fitted():
    detector = to_pyod(IsolationForest())
    for method in (detector.predict, detector.decision_function):
        with pytest.raises(NotFittedError):
            method([[0.0]])


def test_message_without_pyod():
    code = (
        "import sys; sys.modules['pyod'] = None\n"
        "try: import skebm.pyod\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "pip install pyod" in done.stdout
