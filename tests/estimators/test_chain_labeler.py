"""ChainLabeler: against enumeration, logistic regression and the exact posterior."""

import pickle
import warnings
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.preprocessing import StandardScaler

from skebm import ChainLabeler
from skebm.estimators import chain_training
from skebm.exceptions import InterruptedFitWarning

LABELS = np.array(["rest", "run", "walk"])
STAY = np.array([[0.9, 0.02, 0.08], [0.02, 0.9, 0.08], [0.06, 0.06, 0.88]])
PLACES = np.array([[-1.0, 0.0], [1.0, 0.5], [0.3, -0.4]])


def stream(n, rng, length=40):
    """Return n sequences of a hidden Markov chain seen through Gaussian noise."""
    X, y = [], []
    for _ in range(n):
        steps = int(rng.integers(length // 2, length))
        codes = [rng.integers(3)]
        for _ in range(steps - 1):
            codes.append(rng.choice(3, p=STAY[codes[-1]]))
        X.append(PLACES[codes] + rng.normal(size=(steps, 2)))
        y.append(LABELS[codes])
    return X, y


@pytest.fixture(scope="module")
def sequences():
    return stream(60, np.random.default_rng(0))


@pytest.fixture(scope="module")
def fitted(sequences):
    return ChainLabeler(random_state=0).fit(*sequences)


def enumerated(model, x):
    """Return all labelings of a sequence and their energies by hand."""
    z = (x - model.location_) / model.scale_
    u = z @ model.coef_.T + model.intercept_
    codes = np.array(list(product(range(3), repeat=len(x))))
    e = -u[np.arange(len(x)), codes].sum(1) - model.start_[codes[:, 0]]
    e -= model.end_[codes[:, -1]]
    e -= model.transitions_.to_numpy()[codes[:, :-1], codes[:, 1:]].sum(1)
    return codes, e


def test_chain_of_six_by_three_labels(fitted, sequences):
    """All 729 labelings, listed."""
    x = sequences[0][0][:6]
    codes, e = enumerated(fitted, x)
    log_z = np.logaddexp.reduce(-e)
    p = np.exp(-e - log_z)
    assert fitted.log_partition([x])[0] == pytest.approx(log_z, abs=1e-9)
    assert fitted.energy([x])[0] == pytest.approx(-log_z, abs=1e-9)
    marginals = np.stack([(p[:, None] * (codes == k)).sum(0) for k in range(3)], 1)
    np.testing.assert_allclose(fitted.predict_marginals([x])[0], marginals, atol=1e-9)
    assert list(fitted.predict([x])[0]) == list(LABELS[codes[e.argmin()]])
    labels = LABELS[codes]
    repeated = [x] * len(codes)
    np.testing.assert_allclose(fitted.energy(repeated, labels), e, atol=1e-9)
    np.testing.assert_allclose(
        fitted.score_samples(repeated, labels), -e - log_z, atol=1e-9
    )
    assert fitted.score_samples([x])[0] == pytest.approx(p.max() and np.log(p.max()))


def test_draws_have_the_marginals(fitted, sequences):
    x = sequences[0][0][:6]
    drawn = np.array(
        [labels[0] for labels in fitted.sample_labels([x], 2000, random_state=1)]
    )
    found = np.stack([(drawn == label).mean(0) for label in LABELS], 1)
    np.testing.assert_allclose(found, fitted.predict_marginals([x])[0], atol=0.05)
    again = fitted.sample_labels([x], 3, random_state=1)
    np.testing.assert_array_equal(np.array(again)[:, 0], drawn[:3])
    with pytest.raises(ValueError, match="n_samples must be >= 1"):
        fitted.sample_labels([x], 0)


def test_gradient_equals_finite_differences(monkeypatch, sequences):
    """The one that training descends, with its penalty, in three batches."""
    checked = []

    def check(target, start, **settings):
        w = np.random.default_rng(0).normal(size=len(start)) / 3
        slope = target(w)[1]
        for place in range(len(w)):
            step = np.eye(len(w))[place] * 1e-5
            wanted = (target(w + step)[0] - target(w - step)[0]) / 2e-5
            assert slope[place] == pytest.approx(wanted, abs=1e-8)
        checked.append(len(w))
        raise KeyboardInterrupt

    monkeypatch.setattr(chain_training, "minimize", check)
    monkeypatch.setattr(chain_training, "BATCH", 25)
    with pytest.warns(InterruptedFitWarning):
        ChainLabeler(hidden_layer_sizes=(3,)).fit(*sequences)
    assert checked == [(2 + 1) * 3 + (3 + 1) * 3 + 9 + 3 + 3]


def test_single_rows_are_logistic_regression():
    X, y = load_iris(return_X_y=True)
    z = StandardScaler().fit_transform(X)
    expected = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(z, y)
    model = ChainLabeler(alpha=1.0, tol=1e-9).fit(z, y)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-3)
    shift = model.intercept_ + model.start_ + model.end_ - expected.intercept_
    np.testing.assert_allclose(shift, shift.mean(), atol=1e-3)
    np.testing.assert_allclose(
        model.predict_marginals(z), expected.predict_proba(z), atol=1e-3
    )
    assert model.predict(z).shape == y.shape
    assert np.all(model.transitions_ == 0)


def test_sequences_of_one_row_are_rows():
    X, y = load_iris(return_X_y=True)
    rows = ChainLabeler().fit(X, y)
    as_list = ChainLabeler().fit(list(X[:, None]), list(y[:, None]))
    stack = ChainLabeler().fit(X[:, None], y[:, None])
    np.testing.assert_array_equal(rows.coef_, as_list.coef_)
    np.testing.assert_array_equal(rows.coef_, stack.coef_)
    np.testing.assert_array_equal(rows.predict(X), np.ravel(stack.predict(X[:, None])))


def posterior(x):
    """Return p(y_t | x) under the law that made the stream, forward and backward."""
    likelihood = np.exp(-0.5 * ((x[:, None] - PLACES) ** 2).sum(2))
    ahead, behind = [likelihood[0] / 3], [np.ones(3)]
    for row in likelihood[1:]:
        a = (ahead[-1] @ STAY) * row
        ahead.append(a / a.sum())
    for row in likelihood[:0:-1]:
        b = STAY @ (row * behind[-1])
        behind.append(b / b.sum())
    p = np.array(ahead) * np.array(behind[::-1])
    return p / p.sum(1, keepdims=True)


@pytest.mark.parametrize("hidden", [(), (16,)], ids=["linear", "network"])
def test_learns_the_posterior_of_a_hidden_markov_chain(hidden):
    """A chain of Gaussians with one covariance is in the model."""
    X, y = stream(400, np.random.default_rng(1))
    X_test, y_test = stream(100, np.random.default_rng(2))
    model = ChainLabeler(hidden_layer_sizes=hidden, random_state=0).fit(X, y)
    exact = np.vstack([posterior(x) for x in X_test])
    found = np.vstack(model.predict_marginals(X_test))
    assert np.abs(found - exact).mean() < 0.02
    truth = np.concatenate(y_test)
    best = np.mean(LABELS[exact.argmax(1)] == truth)
    alone = LogisticRegression().fit(np.vstack(X), np.concatenate(y))
    by_row = alone.score(np.vstack(X_test), truth)
    assert np.mean(LABELS[found.argmax(1)] == truth) > best - 0.01
    assert model.score(X_test, y_test) > best - 0.03 > by_row + 0.15


def test_transitions_order_the_labels(fitted):
    table = fitted.transitions_
    assert list(table.index) == list(table.columns) == list(LABELS)
    assert np.all(np.diag(table) == table.max(axis=1))
    assert fitted.history_["loss"].shape == (fitted.n_iter_,)
    assert np.all(np.diff(fitted.history_["loss"]) <= 0)


def test_a_window_sees_the_rows_around():
    """The label is the sign of the row before: invisible without a window."""
    rng = np.random.default_rng(0)
    X = list(rng.normal(size=(40, 12, 1)))
    y = [np.r_[0, x[:-1, 0] > 0].astype(int) for x in X]
    assert ChainLabeler().fit(X, y).score(X, y) < 0.7
    model = ChainLabeler(window=1).fit(X, y)
    assert model.score(X, y) > 0.97
    assert model.coef_.shape == (2, 3)
    assert model.coef_[1].argmax() == 0


def test_rows_alone_or_in_a_batch_have_the_same_bits(sequences, dtype):
    X = [x.astype(dtype) for x in sequences[0]]
    y = sequences[1]
    model = ChainLabeler(window=1, hidden_layer_sizes=(5,), max_iter=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    marginals, paths = model.predict_marginals(X), model.predict(X)
    e, joint, p = model.energy(X), model.energy(X, y), model.score_samples(X, y)
    for i in [0, 7, 59]:
        np.testing.assert_array_equal(model.predict_marginals([X[i]])[0], marginals[i])
        np.testing.assert_array_equal(model.predict([X[i]])[0], paths[i])
        assert model.energy([X[i]])[0] == e[i]
        assert model.energy([X[i]], [y[i]])[0] == joint[i]
        assert model.score_samples([X[i]], [y[i]])[0] == p[i]
    order = np.random.default_rng(0).permutation(60)
    shuffled = model.score_samples([X[i] for i in order], [y[i] for i in order])
    np.testing.assert_array_equal(shuffled, p[order])


def test_forms_of_sequences_agree():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 8, 2))
    y = (X[..., 0] + 0.3 * rng.normal(size=(30, 8)) > 0).astype(int)
    objects = np.empty(30, dtype=object)
    objects[:] = list(X)
    model = ChainLabeler().fit(X, y)
    frames = [pd.DataFrame(x, columns=["a", "b"]) for x in X]
    named = ChainLabeler().fit(frames, [pd.Series(labels) for labels in y])
    assert list(named.feature_names_in_) == ["a", "b"]
    assert model.predict(X).shape == (30, 8)
    assert model.predict_marginals(X).shape == (30, 8, 2)
    for form in (list(X), tuple(X), objects, X.tolist()):
        assert isinstance(model.predict(form), list)
        np.testing.assert_array_equal(np.array(model.predict(form)), model.predict(X))
        assert model.score(form, y) == model.score(X, y)
    np.testing.assert_array_equal(np.array(named.predict(frames)), model.predict(X))


def bad_sequences():
    """Return pairs of changed sequences and what the message says."""
    x = [np.ones((4, 2)), np.zeros((3, 2))]
    y = [[0, 1, 0, 1], [1, 0, 1]]
    hole = [x[0], np.array([[0, 1], [np.nan, 1], [0, 0]])]
    endless = [np.array([[0, np.inf], [0, 1], [0, 0], [1, 1]]), x[1]]
    frames = [pd.DataFrame(rows, columns=["a", "b"]) for rows in x]
    return {
        "hole": (hole, y, r"X\[1\] contains NaN in row 1.*Impute it"),
        "infinity": (endless, y, r"X\[0\] contains infinity in row 0"),
        "stack": (np.full((2, 3, 2), np.nan), None, r"X\[0\] contains NaN in row 0"),
        "width": ([x[0], x[1][:, :1]], y, r"X\[1\] has 1 columns and X\[0\] has 2"),
        "vector": ([x[0], x[1][:, 0]], y, r"X\[1\] has shape \(3,\)"),
        "empty": ([x[0], x[1][:0]], y, r"X\[1\] has 0 rows"),
        "names": ([frames[0], frames[1][["b", "a"]]], y, "feature names must be"),
        "labels": (x, [y[0], y[1][:2]], r"X\[1\] has 3 rows but y\[1\] has shape \(2,"),
        "nested": (x, [y[0], [[1], [0], [1]]], r"y\[1\] has shape \(3, 1\)"),
        "number": (x, y[:1], "2 sequences in X but 1 in y"),
        "one class": (x, [[0] * 4, [0] * 3], "two classes or more"),
        "holed labels": (x, [y[0], [1.0, np.nan, 0.0]], "NaN"),
        "measures": (x, [[0.5] * 4, [1.5] * 3], "Unknown label type"),
    }


@pytest.mark.parametrize("case", bad_sequences())
def test_bad_sequences_are_told(case, fitted):
    X, y, message = bad_sequences()[case]
    with pytest.raises(ValueError, match=message):
        ChainLabeler().fit(X, np.zeros((2, 3)) if y is None else y)
    if case in ("one class", "holed labels", "measures"):
        return
    with pytest.raises(ValueError, match=message):
        fitted.energy(X, None if y is None else y)


def test_labels_that_fit_did_not_see(fitted, sequences):
    x = sequences[0][0][:2]
    with pytest.raises(ValueError, match=r"labels \['swim'\] that were not in fit"):
        fitted.energy([x], [["rest", "swim"]])
    with pytest.raises(ValueError, match="X has 1 features, but ChainLabeler"):
        fitted.predict([x[:, :1]])


def test_cross_validation_with_a_splitter(sequences):
    X, y = sequences
    scores = cross_val_score(ChainLabeler(), X, y, cv=KFold(3))
    assert scores.min() > 0.7
    search = GridSearchCV(ChainLabeler(), {"alpha": [0.1, 1e4]}, cv=KFold(3)).fit(X, y)
    assert search.best_params_ == {"alpha": 0.1}


def test_huge_values_and_constant_columns(sequences):
    X = [np.c_[1e300 * x, np.full(len(x), 7.0)] for x in sequences[0]]
    model = ChainLabeler().fit(X, sequences[1])
    plain = ChainLabeler().fit(*sequences)
    np.testing.assert_allclose(model.coef_[:, :2], plain.coef_, atol=1e-3)
    far = [np.array([[1.7e308, -1.7e308, 1e300]])]
    assert np.isfinite(model.predict_marginals(far)[0]).all()
    assert np.isfinite(model.energy(far)).all()


def test_ctrl_c_keeps_the_last_whole_iteration(monkeypatch, sequences):
    X, y = sequences
    with pytest.warns(ConvergenceWarning, match="max_iter=2") as caught:
        expected = ChainLabeler(max_iter=2).fit(X, y)
    assert caught[0].filename == __file__
    found, calls = chain_training.loss_and_gradient, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return found(*args)

    monkeypatch.setattr(chain_training, "loss_and_gradient", interrupted)
    with pytest.warns(InterruptedFitWarning, match="iteration 2") as caught:
        model = ChainLabeler().fit(X, y)
    assert caught[0].filename == __file__
    assert model.n_iter_ == 2
    np.testing.assert_array_equal(model.coef_, expected.coef_)


def test_same_seed_same_chain_and_pickles(sequences):
    X, y = sequences
    state = torch.random.get_rng_state()
    one, two = (
        ChainLabeler(hidden_layer_sizes=[4], random_state=3, tol=1e-2).fit(X, y)
        for _ in range(2)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert not hasattr(one, "coef_")
    np.testing.assert_array_equal(one.energy(X), two.energy(X))
    other = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(other.energy(X, y), one.energy(X, y))
    with pytest.raises(ValueError, match="hidden_layer_sizes=array"):
        ChainLabeler(hidden_layer_sizes=np.array(4.5)).fit(X, y)


def test_sequences_of_other_shapes_are_refused_with_advice():
    tables, y = [np.ones((3, 2)), np.ones((2, 2))], [[0, 1, 0], [1, 0]]
    vectors = [table[:, 0] for table in tables]
    frames = [pd.DataFrame(tables[0]), tables[1]]
    model = ChainLabeler()
    for X, labels, message in (
        (vectors, y, "Reshape it"),
        (pd.Series(vectors), y, "Reshape it"),
        ([], [], "no sequences"),
        (np.empty((2, 0, 2)), [[], []], "length 0"),
        (frames, y, "or none"),
        (tables, [[0, 1, 0], ["a", "b"]], "of one kind"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(X, labels)
    found = model.fit(pd.Series(tables), y).predict(pd.Series(tables))
    assert [len(labels) for labels in found] == [3, 2]


def test_a_bare_table_is_no_sequence():
    """It would be read as rows that have no neighbours."""
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(5, 2)) for _ in range(10)]
    model = ChainLabeler().fit(X, [(x[:, 0] > 0).astype(int) for x in X])
    with pytest.raises(ValueError, match=r"one table of 5 rows.*Pass \[X\]"):
        model.predict(X[0])
    assert model.predict(X[0][:, None]).shape == (5, 1)
    rows = np.concatenate(X)
    model.fit(rows, (rows[:, 0] > 0).astype(int))
    assert model.predict(X[0]).shape == (5,)


def test_row_09_a_denormal_column_is_constant_and_said_to_be():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = X[:, 0] > 0
    X[:, 1] = 1e-310 * rng.random(60)
    with pytest.warns(UserWarning, match=r"Columns \[1\] of X vary by less than"):
        model = ChainLabeler().fit(X, y)
    assert model.scale_[1] == 1
    assert np.isfinite(model.energy(X, y)).all()
