"""The contract of every public estimator: scikit-learn's checks, and skebm's own.

A mark says which estimators a test is for: TRAITS in tests/conftest.py.
"""

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from tables import columns_of, draws, far_row, far_rows, fit, rows_of, typical_row

import skebm
import skebm._check
import skebm.partition
from skebm.metrics import make_outlier_scorer

WIDE = {
    "explain",
    "predict_interval",
    "predict_proba",
    "predict_quantiles",
    "transform",
}
"""Readers that return several numbers for a row."""

densities = pytest.mark.estimators("density")
tables = pytest.mark.estimators("table")


def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.all_checks_but("check_transformer_preserve_dtypes")
def test_sklearn_checks_in_float32(monkeypatch, estimator, check):
    """The same checks, every table turned into float32 at the door.

    The check left out wants float64 back, and feeds float32 itself.
    """
    validate = skebm._check.validate_data

    def narrow(*args, **kwargs):
        rows = validate(*args, **kwargs)
        if getattr(rows, "dtype", None) == np.float64:
            with np.errstate(over="ignore"):
                rows = rows.astype(np.float32)
        return rows

    monkeypatch.setattr(skebm._check, "validate_data", narrow)
    check(estimator)


@tables
def test_fit_returns_the_estimator(estimator, X):
    assert fit(estimator, X) is estimator


@tables
def test_shapes_of_readers(fitted, X, X_new, dtype, readers):
    estimator, n = fitted(X.astype(dtype)), len(X_new)
    for reader in readers(estimator):
        values = getattr(estimator, reader)(X_new.astype(dtype))
        wide = reader in WIDE
        assert values.ndim == (2 if wide else 1)
        assert len(values) == n
        if reader != "predict" or values.dtype.kind == "f":
            assert np.isfinite(values).all()
    assert estimator.n_features_in_ == 3
    assert not hasattr(estimator, "feature_names_in_")


@densities
def test_identities_between_readers(fitted, X, X_new, dtype):
    estimator, X_new = fitted(X.astype(dtype)), X_new.astype(dtype)
    assert estimator.explain(X_new).shape == X_new.shape
    energy, scores = estimator.energy(X_new), estimator.score_samples(X_new)
    assert energy.dtype == scores.dtype == np.float64
    np.testing.assert_array_equal(scores, -energy - (estimator.log_partition_ or 0.0))
    margin = estimator.decision_function(X_new)
    np.testing.assert_array_equal(margin, scores - estimator.offset_)
    np.testing.assert_array_equal(estimator.predict(X_new), np.where(margin < 0, -1, 1))
    assert isinstance(estimator.offset_, float)


@densities
def test_far_rows_are_anomalies_and_typical_rows_are_not(fitted, X, kind):
    estimator = fitted(X)
    rows = np.vstack([typical_row(kind, X), far_row(kind, X)])
    np.testing.assert_array_equal(estimator.predict(rows), [1, -1])
    energy, p = estimator.energy(rows), estimator.p_values(rows)
    assert energy[0] < energy[1]
    assert p[0] > 0.3
    assert p[1] == pytest.approx(1 / (len(X) + 1))


@densities
def test_fit_predict_is_fit_then_predict(estimator, X, dtype):
    X = X.astype(dtype)
    together = clone(estimator).fit_predict(X)
    judge = estimator.fit(X)
    if getattr(estimator, "novelty", False):
        judge = judge.leave_one_out()
    np.testing.assert_array_equal(together, judge.predict(X))
    assert set(together) == {-1, 1}


@densities
def test_p_values_and_their_decisions(fitted, X, X_new):
    estimator = fitted(X)
    p = estimator.p_values(X_new)
    assert np.all((p > 0) & (p <= 1))
    order = np.argsort(estimator.energy(X_new[:30]))
    assert np.all(np.diff(p[:30][order]) <= 0)
    strict, loose = (estimator.predict_fdr(X_new, q=q) for q in [0.01, 0.9])
    assert set(strict) | set(loose) <= {-1, 1}
    assert np.all(loose[strict == -1] == -1)
    assert np.sum(loose == -1) > np.sum(strict == -1)


@densities
@pytest.mark.estimators("numbers")
def test_calibrate(fitted, X, X_new, table):
    estimator, clean = fitted(X), table(40)
    threshold = estimator.offset_
    energy = estimator.energy(X_new)
    assert estimator.calibrate(clean) is estimator
    np.testing.assert_array_equal(estimator.energy(X_new), energy)
    np.testing.assert_array_equal(
        estimator.calibration_energy_, np.sort(estimator.energy(clean))
    )
    assert estimator.offset_ != threshold
    assert np.mean(estimator.predict(clean) == -1) <= 0.05
    with pytest.warns(UserWarning, match="calibrate got 10 rows"):
        estimator.calibrate(clean[:10])


@densities
def test_calibrate_keeps_the_threshold_of_a_contamination(estimator, X, X_new):
    estimator.set_params(contamination=0.2).fit(X)
    threshold = estimator.offset_
    assert estimator.calibrate(X_new).offset_ == threshold


@densities
def test_float32_and_float64_agree(estimator, X, X_new):
    wide = estimator.fit(X).energy(X_new[:30])
    narrow = estimator.fit(X.astype(np.float32)).energy(X_new[:30].astype(np.float32))
    assert np.corrcoef(wide, narrow)[0, 1] > 0.999


@densities
def test_float64_copies_of_float32_training_rows_are_own_copies(fitted, X):
    narrow = X.astype(np.float32)
    estimator = fitted(narrow)
    np.testing.assert_array_equal(
        estimator.energy(narrow.astype(np.float64)), estimator.energy(narrow)
    )
    assert np.isfinite(estimator.energy(X)).all()


@tables
def test_clone_set_params_and_repr(fitted, X):
    estimator = fitted(X)
    fresh = clone(estimator)
    assert repr(fresh.get_params()) == repr(estimator.get_params())
    assert not hasattr(fresh, "n_features_in_")
    rebuilt = eval(repr(estimator), vars(skebm.partition) | vars(skebm))
    assert repr(rebuilt.get_params()) == repr(estimator.get_params())
    estimator.set_params(random_state=3)
    assert estimator.random_state == 3
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        estimator.set_params(nonsense=1)
    assert estimator._repr_html_().startswith("<style>")


def with_pickle(estimator, path):
    return pickle.loads(pickle.dumps(estimator))


def with_joblib(estimator, path):
    joblib.dump(estimator, path)
    return joblib.load(path)


def with_deepcopy(estimator, path):
    return copy.deepcopy(estimator)


@tables
@pytest.mark.parametrize("copied", [with_pickle, with_joblib, with_deepcopy])
def test_copies_read_bit_for_bit(fitted, X, X_new, dtype, readers, copied, tmp_path):
    X, X_new = X.astype(dtype), X_new.astype(dtype)
    estimator = fitted(X)
    other = copied(estimator, tmp_path / "model")
    for reader in readers(estimator):
        np.testing.assert_array_equal(
            getattr(other, reader)(X_new), getattr(estimator, reader)(X_new)
        )
    reader = readers(estimator)[0]
    np.testing.assert_array_equal(
        getattr(other, reader)(X), getattr(estimator, reader)(X)
    )
    if hasattr(estimator, "sample"):
        np.testing.assert_array_equal(draws(other, X, 5), draws(estimator, X, 5))
    fit(other, X)
    for reader in readers(estimator):
        np.testing.assert_array_equal(
            getattr(other, reader)(X_new), getattr(estimator, reader)(X_new)
        )


@densities
def test_sample(fitted, X, kind):
    estimator = fitted(X)
    assert estimator.sample().shape == (1, 3)
    rows = estimator.sample(50)
    assert isinstance(rows, np.ndarray)
    assert rows.shape == (50, 3)
    if kind == "real":
        assert len(np.unique(rows, axis=0)) == 50
    else:
        assert set(np.unique(rows)) <= set(np.unique(X))
    np.testing.assert_array_equal(
        estimator.sample(5, random_state=1), estimator.sample(5, random_state=1)
    )
    assert np.any(estimator.sample(50, random_state=1) != rows)
    assert np.mean(estimator.predict(rows) == 1) > 0.7


@densities
def test_score_is_refused_with_advice_where_not_normalised(fitted, X):
    estimator = fitted(X)
    if estimator.log_partition_ is not None:
        assert estimator.score(X) == np.mean(estimator.score_samples(X))
        return
    assert not hasattr(estimator, "score")
    with pytest.raises(AttributeError) as error:
        _ = estimator.score
    assert "make_outlier_scorer" in str(error.value.__cause__)


@tables
def test_dataframes_read_like_arrays(estimator, fitted, X, X_new, readers):
    names = ["width", "weight", "price"]
    frame = pd.DataFrame(X_new, columns=names, index=range(7, 7 + len(X_new)))
    plain = fitted(X)
    fit(estimator, pd.DataFrame(X, columns=names))
    assert list(estimator.feature_names_in_) == names
    for reader in readers(estimator):
        np.testing.assert_array_equal(
            np.asarray(getattr(estimator, reader)(frame)), getattr(plain, reader)(X_new)
        )


@densities
def test_dataframes_come_back(estimator, X, X_new):
    names = ["width", "weight", "price"]
    frame = pd.DataFrame(X_new, columns=names, index=range(7, 7 + len(X_new)))
    estimator.fit(pd.DataFrame(X, columns=names))
    contributions = estimator.explain(frame)
    assert isinstance(contributions, pd.DataFrame)
    assert list(contributions.columns) == names
    assert contributions.index.equals(frame.index)
    rows = estimator.sample(4)
    assert isinstance(rows, pd.DataFrame)
    assert list(rows.columns) == names


def first_step(estimator):
    """Return a first step of a pipeline that leaves the estimator's domain alone."""
    is_real = columns_of(estimator) == "real"
    return "scale", StandardScaler(with_mean=is_real, with_std=is_real)


@densities
def test_set_output_pandas_in_a_pipeline(estimator, X, X_new):
    names = ["width", "weight", "price"]
    pipeline = Pipeline([first_step(estimator), ("detector", clone(estimator))])
    pipeline.set_output(transform="pandas").fit(pd.DataFrame(X, columns=names))
    assert list(pipeline[-1].feature_names_in_) == names
    first = clone(pipeline[0]).set_output(transform="default").fit(X)
    expected = estimator.fit(first.transform(X)).predict(first.transform(X_new))
    frame = pd.DataFrame(X_new, columns=names)
    np.testing.assert_array_equal(pipeline.predict(frame), expected)
    contributions = pipeline[-1].explain(pipeline[:-1].transform(frame[:2]))
    assert list(contributions.columns) == names


def labelled(kind, rng):
    """Return 90 rows and 10 anomalies, and which rows are anomalies."""
    if kind == "real":
        far = rng.normal(size=(10, 3))
        far *= rng.uniform(5, 15, (10, 1)) / np.linalg.norm(far, axis=1, keepdims=True)
        near = rng.normal(size=(90, 3))
    else:
        near = rows_of(kind, rng, 90, 6)
        far = far_rows(kind, near[-10:])
    return np.vstack([near, far]), np.repeat([0, 1], [90, 10])


@densities
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_over_a_pipeline(estimator, kind, rng, n_jobs):
    X, y = labelled(kind, rng)
    search = GridSearchCV(
        Pipeline([first_step(estimator), ("detector", estimator)]),
        {"detector__contamination": [0.1, 0.5]},
        scoring={
            "auc": make_outlier_scorer("roc_auc"),
            "balanced": make_outlier_scorer("balanced_accuracy"),
        },
        refit="balanced",
        cv=StratifiedKFold(3),
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(X, y)
    assert search.best_params_ == {"detector__contamination": 0.1}
    assert np.all(search.cv_results_["mean_test_auc"] > 0.9)
    assert np.mean(search.predict(X[y == 1]) == -1) > 0.5


class Recorder:
    """A callback that follows scikit-learn's protocol and keeps what it is told."""

    max_propagation_depth = None

    def __init__(self):
        self.begun, self.ended, self.open, self.hooks = [], [], 0, []

    def setup(self, estimator, context):
        self.hooks.append("setup")

    def on_fit_task_begin(self, estimator, context):
        self.begun.append(context)
        self.open += 1

    def on_fit_task_end(self, estimator, context):
        self.ended.append(context)
        self.open -= 1

    def teardown(self, estimator, context):
        self.hooks.append("teardown")


def ancestors(context):
    while context.parent is not None:
        context = context.parent
        yield context.estimator_name


@densities
def test_callbacks_see_every_task(estimator, X):
    recorder = Recorder()
    estimator.set_callbacks(recorder).fit(X)
    assert recorder.hooks == ["setup", "teardown"]
    root, *tasks = recorder.begun
    assert root.parent is None
    assert len(tasks) == root.max_subtasks > 0
    assert all(task.parent is root and task.task_name for task in tasks)
    assert recorder.open == 0
    assert recorder.ended == [*tasks, root]


@densities
def test_callbacks_change_no_score_and_do_not_stay(estimator, fitted, X):
    expected = fitted(X).score_samples(X)
    estimator.set_callbacks(Recorder()).fit(X)
    np.testing.assert_array_equal(estimator.score_samples(X), expected)
    assert not any("task" in name for name in vars(estimator))
    assert pickle.loads(pickle.dumps(estimator)).fit(X).offset_ == estimator.offset_


@densities
def test_callbacks_are_torn_down_when_fit_fails(estimator, X):
    recorder = Recorder()
    with pytest.raises(ValueError, match="NaN"):
        estimator.set_callbacks(recorder).fit(np.full_like(X, np.nan))
    assert recorder.hooks in ([], ["setup", "teardown"])
    estimator.fit(X)
    assert recorder.hooks[-2:] == ["setup", "teardown"]


@densities
@pytest.mark.parametrize("in_pipeline", [False, True])
def test_callbacks_nest_inside_a_grid_search(estimator, kind, rng, in_pipeline):
    X, y = labelled(kind, rng)
    name = type(estimator).__name__
    grid = {"contamination": [0.1, 0.2]}
    if in_pipeline:
        estimator = Pipeline([first_step(estimator), ("detector", estimator)])
        grid = {"detector__contamination": [0.1, 0.2]}
    recorder = Recorder()
    search = GridSearchCV(
        estimator, grid, scoring=make_outlier_scorer(), cv=StratifiedKFold(2)
    )
    search.set_callbacks(recorder).fit(X, y)
    assert recorder.hooks == ["setup", "teardown"]
    ours = [context for context in recorder.begun if context.estimator_name == name]
    roots = [context for context in ours if name not in ancestors(context)]
    assert len(roots) == 2 * 2 + 1
    assert len(ours) == len(roots) * (1 + roots[0].max_subtasks)
    for context in ours:
        assert list(ancestors(context))[-1] == "GridSearchCV"
    assert recorder.open == 0
    assert set(map(id, recorder.begun)) == set(map(id, recorder.ended))


@densities
def test_progress_bar(estimator, X, capsys):
    estimator.set_callbacks(ProgressBar()).fit(X)
    assert type(estimator).__name__ in capsys.readouterr().out


@densities
def test_assume_finite_and_skipped_validation(estimator, fitted, X):
    expected = fitted(X).score_samples(X)
    with config_context(assume_finite=True, skip_parameter_validation=True):
        np.testing.assert_array_equal(estimator.fit(X).score_samples(X), expected)


@densities
def test_devices_agree(estimator, X, X_new, device):
    on_cpu = clone(estimator).set_params(device="cpu").fit(X)
    estimator.set_params(device=device).fit(X)
    assert torch.device(estimator.device_).type == device
    np.testing.assert_allclose(
        estimator.energy(X_new), on_cpu.energy(X_new), rtol=1e-3, atol=1e-3
    )
    assert estimator.sample(5).shape == (5, 3)
    loaded = pickle.loads(pickle.dumps(estimator))
    assert loaded.device_ == "cpu"
    np.testing.assert_allclose(
        loaded.energy(X_new), estimator.energy(X_new), rtol=1e-3, atol=1e-3
    )


@pytest.mark.estimators("density")
def test_explanations_compare_with_rows_of_the_lower_half(fitted, X):
    """All references have at most the median energy of the training rows."""
    found = fitted(X)
    highest = found._measure(found._references).max()
    assert highest <= np.median(found.energy(X)) + 1e-9


@pytest.mark.estimators("density")
def test_the_offset_is_a_score_and_so_holds_log_partition(fitted, X, table):
    """The threshold t of energies: predict is -1 where E(x) > t, whatever log Z is."""
    found, new = fitted(X), table(60)
    is_read_only = hasattr(type(found), "log_partition_")
    for log_partition in [found.log_partition_] if is_read_only else (None, 7.5):
        if not is_read_only:
            found.log_partition_ = log_partition
        found.calibrate(new)
        threshold = np.sort(found.energy(new))[57]  # ceil(.95 * 61) = 58 of 60
        shift = log_partition or 0.0
        assert found.offset_ == pytest.approx(-threshold - shift)
        margin = threshold - found.energy(X)
        np.testing.assert_allclose(found.decision_function(X), margin, atol=1e-9)
        np.testing.assert_array_equal(found.predict(X) == -1, margin < 0)
