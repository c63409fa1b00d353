import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
)
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm import EnergyOutlierDetector
from skebm.metrics import fpr_at_tpr, make_outlier_scorer

ALL_METRICS = [
    "roc_auc",
    "average_precision",
    "fpr_at_tpr",
    "fpr95",
    "balanced_accuracy",
    "f1",
    "precision",
    "recall",
    "matthews_corrcoef",
]


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(180, 3)), rng.normal(3.5, 1, size=(20, 3))])
    y = np.repeat([0, 1], [180, 20])
    order = rng.permutation(200)
    return X[order], y[order]


class DistanceDetector(OutlierMixin, BaseEstimator):
    """Normal = near the origin, or the opposite where sign=-1."""

    def __init__(self, sign=1):
        self.sign = sign

    def fit(self, X, y=None):
        self.offset_ = -2.5
        return self

    def decision_function(self, X):
        distance = np.linalg.norm(np.asarray(X), axis=1)
        return self.sign * (-distance - self.offset_)

    def predict(self, X):
        return np.where(self.decision_function(X) < 0, -1, 1)


@pytest.mark.parametrize(
    ("tpr", "expected"), [(0.3, 0.0), (0.6, 0.25), (0.67, 0.5), (0.95, 0.5), (1.0, 0.5)]
)
def test_fpr_at_tpr_by_hand(tpr, expected):
    y = [0, 0, 0, 0, 1, 1, 1]
    score = [1.0, 2.0, 4.0, 6.0, 3.0, 5.0, 7.0]
    assert fpr_at_tpr(y, score, tpr=tpr) == expected


def test_fpr_at_tpr_meets_the_rate_exactly():
    y = np.repeat([1, 0], [20, 4])
    score = np.r_[np.arange(20.0), 0.5, -1.0, -2.0, 15.5]
    assert fpr_at_tpr(y, score, tpr=19 / 20) == 0.25
    assert fpr_at_tpr(y, score, tpr=0.96) == 0.5


@pytest.mark.parametrize("shift", [0.5, 2.0, 4.0])
def test_fpr_at_tpr_of_two_gaussians(shift):
    rng = np.random.default_rng(0)
    n = 100_000
    score = np.r_[rng.normal(size=n), rng.normal(shift, 1, size=n)]
    y = np.repeat([0, 1], n)
    expected = norm.sf(shift + norm.ppf(0.05))
    assert fpr_at_tpr(y, score) == pytest.approx(expected, abs=0.01)


def test_fpr_at_tpr_counts_ties_as_flagged():
    assert fpr_at_tpr([0, 0, 1, 1], [1.0, 1.0, 1.0, 1.0]) == 1.0
    assert fpr_at_tpr([0, 0, 1, 1], [0.0, 1.0, 1.0, 2.0]) == 0.5


def test_fpr_at_tpr_of_perfect_and_inverted_scores():
    y = np.array([False, False, True, True])
    assert fpr_at_tpr(y, [0.0, 1.0, 2.0, 3.0]) == 0.0
    assert fpr_at_tpr(y, [3.0, 2.0, 1.0, 0.0]) == 1.0


@pytest.mark.parametrize(
    ("y", "score", "match"),
    [
        ([1, 1], [0.0, 1.0], r"both 0 \(normal\) and 1"),
        ([0, 0], [0.0, 1.0], "both 0"),
        ([-1, 1], [0.0, 1.0], r"pass y_true == -1"),
        (["a", "b"], [0.0, 1.0], "got \\['a', 'b'\\]"),
        ([0, 1, 2, 3, 4, 5, 6], np.arange(7.0), r"4, \.\.\.\]"),
        ([0, np.nan], [0.0, 1.0], "y_true contains NaN"),
        ([0, 1], [np.nan, 1.0], "y_score contains NaN"),
        ([0, 1], [np.inf, 1.0], "y_score contains infinity"),
        ([0, 1, 1], [0.0, 1.0], "inconsistent numbers"),
        ([], [], "got \\[\\]"),
    ],
)
def test_fpr_at_tpr_refuses(y, score, match):
    with pytest.raises(ValueError, match=match):
        fpr_at_tpr(y, score)


@pytest.mark.parametrize("tpr", [0.0, -0.1, 1.1, np.nan])
def test_tpr_out_of_range(tpr):
    with pytest.raises(ValueError, match=r"tpr must be in \(0, 1\]"):
        fpr_at_tpr([0, 1], [0.0, 1.0], tpr=tpr)
    with pytest.raises(ValueError, match=r"tpr must be in \(0, 1\]"):
        make_outlier_scorer("fpr_at_tpr", tpr=tpr)


def test_scorer_values(table):
    X, y = table
    model = DistanceDetector().fit(X)
    score, flagged = -model.decision_function(X), model.predict(X) == -1
    expected = {
        "roc_auc": roc_auc_score(y, score),
        "average_precision": average_precision_score(y, score),
        "fpr_at_tpr": -fpr_at_tpr(y, score),
        "fpr95": -fpr_at_tpr(y, score),
        "balanced_accuracy": balanced_accuracy_score(y, flagged),
        "f1": f1_score(y, flagged),
    }
    for metric, value in expected.items():
        assert make_outlier_scorer(metric)(model, X, y) == value
    strict = make_outlier_scorer("fpr_at_tpr", tpr=1.0)(model, X, y)
    assert strict == -fpr_at_tpr(y, score, tpr=1.0)


@pytest.mark.parametrize("metric", ALL_METRICS)
def test_scorer_prefers_the_better_model(table, metric):
    X, y = table
    scorer = make_outlier_scorer(metric)
    good, bad = DistanceDetector(1).fit(X), DistanceDetector(-1).fit(X)
    assert scorer(good, X, y) > scorer(bad, X, y)


@pytest.mark.parametrize("metric", ["f1", "precision"])
def test_nothing_flagged_is_zero_without_a_warning(table, metric):
    X, y = table
    near = np.zeros_like(X)
    assert make_outlier_scorer(metric)(DistanceDetector().fit(X), near, y) == 0.0


@pytest.mark.parametrize(
    ("convert", "kwargs"),
    [
        (lambda y: y.astype(bool), {}),
        (lambda y: y.astype(float), {}),
        (lambda y: pd.Series(y, dtype="Int64"), {}),
        (lambda y: np.where(y == 1, -1, 1), {}),
        (lambda y: 1 - y, {"anomaly_label": 0}),
        (lambda y: np.where(y == 1, 1, -1), {"anomaly_label": 1}),
        (lambda y: np.where(y == 1, "fraud", "fine"), {"anomaly_label": "fraud"}),
        (lambda y: pd.Series(np.where(y == 1, "f", "g")), {"anomaly_label": "f"}),
        (lambda y: np.where(y == 1, 7, np.arange(len(y)) % 7), {"anomaly_label": 7}),
    ],
)
def test_scorer_reads_conventions_of_y(table, convert, kwargs):
    X, y = table
    model = DistanceDetector().fit(X)
    scorer = make_outlier_scorer("average_precision", **kwargs)
    expected = make_outlier_scorer("average_precision")(model, X, y)
    assert scorer(model, X, convert(y)) == expected


@pytest.mark.parametrize(
    ("y", "kwargs", "match"),
    [
        ([1, 1, 1], {}, "means anomaly in {0, 1} and normal in {-1, "),
        ([1, 1, 1], {"anomaly_label": 1}, "StratifiedKFold"),
        ([0, 0, 0], {}, "StratifiedKFold"),
        ([-1, -1, -1], {}, "both normal rows and anomalies"),
        ([-1, 0, 1], {}, "Pass anomaly_label"),
        ([0, 1, 2], {}, "Pass anomaly_label"),
        (["a", "b", "a"], {}, "Pass anomaly_label"),
        (["a", "b", "a"], {"anomaly_label": "c"}, r"label 'c'\); got only \['a'"),
        ([0, 1, 1], {"anomaly_label": "1"}, "label '1'"),
        ([0.0, 1.0, np.nan], {}, "y contains NaN"),
        (pd.Series([0, 1, None], dtype="Int64"), {}, "NaN"),
        ([[0, 1], [0, 1], [0, 1]], {}, "1d array"),
        (None, {}, "got y=None"),
    ],
)
def test_scorer_refuses_y(y, kwargs, match):
    X = np.zeros((3, 2))
    scorer = make_outlier_scorer(**kwargs)
    with pytest.raises(ValueError, match=match):
        scorer(DistanceDetector().fit(X), X, y)


def test_scorer_refuses_arguments():
    with pytest.raises(ValueError, match=r"metric must be one of .*got 'auc'"):
        make_outlier_scorer("auc")
    with pytest.raises(ValueError, match="no meaning for metric='roc_auc'"):
        make_outlier_scorer("roc_auc", tpr=0.9)


def test_scorer_refuses_estimators_of_another_meaning(table):
    X, y = table
    scorer = make_outlier_scorer()
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    with pytest.raises(TypeError, match="classifier LogisticRegression"):
        scorer(classifier, X, y)
    with pytest.raises(TypeError, match="novelty=True"):
        scorer(LocalOutlierFactor().fit(X), X, y)


def test_scorer_refuses_pyod(table):
    pytest.importorskip("pyod")
    from pyod.models.ecod import ECOD

    X, y = table
    with pytest.raises(TypeError, match="ECOD is a PyOD detector"):
        make_outlier_scorer()(make_pipeline(StandardScaler(), ECOD()).fit(X), X, y)


def test_scorer_takes_density_estimators(table):
    X, y = table
    model = make_pipeline(StandardScaler(), GaussianMixture(random_state=0)).fit(X)
    expected = roc_auc_score(y, -model.score_samples(X))
    assert make_outlier_scorer()(model, X, y) == expected


def test_scorer_is_a_value():
    scorer = make_outlier_scorer("fpr_at_tpr", anomaly_label=-1, tpr=0.9)
    assert repr(scorer) == (
        "make_outlier_scorer('fpr_at_tpr', anomaly_label=-1, tpr=0.9)"
    )
    assert repr(make_outlier_scorer()) == "make_outlier_scorer('roc_auc')"
    assert pickle.loads(pickle.dumps(scorer)) == scorer == copy.deepcopy(scorer)
    search = GridSearchCV(DistanceDetector(), {"sign": [1]}, scoring=scorer)
    assert clone(search).scoring == scorer


def test_plain_roc_auc_picks_the_worst_model_and_ours_the_best(table):
    X, y = table
    pipeline = make_pipeline(StandardScaler(), DistanceDetector())
    grid = {"distancedetector__sign": [-1, 1]}
    cv = StratifiedKFold(4)
    plain = GridSearchCV(pipeline, grid, scoring="roc_auc", cv=cv).fit(X, y)
    ours = GridSearchCV(pipeline, grid, scoring=make_outlier_scorer(), cv=cv).fit(X, y)
    assert plain.best_params_ == {"distancedetector__sign": -1}
    assert ours.best_params_ == {"distancedetector__sign": 1}
    assert ours.best_score_ > 0.9


def test_grid_search_over_a_pipeline_in_two_processes(table):
    X, y = table
    pipeline = make_pipeline(StandardScaler(), EnergyOutlierDetector(random_state=0))
    search = GridSearchCV(
        pipeline.set_output(transform="pandas"),
        {"energyoutlierdetector__novelty": [False, True]},
        scoring={"auc": make_outlier_scorer(), "fpr": make_outlier_scorer("fpr95")},
        refit="auc",
        cv=StratifiedKFold(2),
        n_jobs=2,
        error_score="raise",
    )
    with warnings.catch_warnings():
        # loky, where the machine is busy.
        warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
        search.fit(pd.DataFrame(X, columns=["a", "b", "c"]), y)
    assert search.best_score_ > 0.8
    assert np.all(search.cv_results_["mean_test_fpr"] <= 0)


def test_fold_without_anomalies_says_to_stratify():
    X = np.arange(20.0)[:, None]
    y = np.repeat([0, 1], [18, 2])
    with pytest.raises(ValueError, match="StratifiedKFold"):
        cross_val_score(
            DistanceDetector(),
            X,
            y,
            scoring=make_outlier_scorer(),
            error_score="raise",
        )
