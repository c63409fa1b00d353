"""RBMClassifier: learning to classify, and the machine behind it."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import rel_entr
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from skebm import RBMClassifier
from skebm.exceptions import DataDomainError
from skebm.partition import LayerSum

BITS = np.array([[i >> j & 1 for j in range(3)] for i in range(8)], dtype=float)
PARITY = BITS.sum(1) % 2


@pytest.fixture(scope="module")
def table():
    """500 rows of three bits; the label is their parity, one in ten flipped."""
    rng = np.random.default_rng(0)
    X = BITS[rng.choice(8, 500, p=np.arange(1, 9) / 36)]
    y = np.where(rng.random(500) < 0.1, 1 - X.sum(1) % 2, X.sum(1) % 2)
    return X, np.array(["even", "odd"])[y.astype(int)]


def tiny(**params):
    return RBMClassifier(
        **{"n_components": 12, "learning_rate": 0.03, "random_state": 0} | params
    )


@pytest.fixture(scope="module")
def fitted(table):
    return tiny(max_iter=150, generative_weight=0.5, dropout=0.0).fit(*table)


def frequencies(X, y):
    """Return the empirical joint law over (row, label), shape (8, 2)."""
    codes = (X @ [1, 2, 4]).astype(int) * 2 + (y == "odd")
    return np.bincount(codes, minlength=16).reshape(8, 2) / len(X)


def joint_law(model):
    """Return p(x, y) of a fitted model, normalised by the exact log Z."""
    e = np.stack([model.energy(BITS, [label] * 8) for label in model.classes_], 1)
    return np.exp(-e - LayerSum()(model.energy_).value)


@pytest.mark.parametrize("training", ["discriminative", "hybrid"])
def test_learns_parity(table, training):
    """No linear classifier can; the noise leaves nine in ten."""
    X, y = table
    model = tiny(training=training, max_iter=150, dropout=0.0).fit(X, y)
    assert model.score(BITS, np.where(PARITY == 1, "odd", "even")) == 1
    p = frequencies(X, y)
    excess = rel_entr(p, p.sum(1, keepdims=True) * model.predict_proba(BITS)).sum()
    assert 0 <= excess < 0.02


def majority():
    """Return 4,000 rows and the majority of their bits, one label in ten flipped."""
    rng = np.random.default_rng(1)
    X = BITS[rng.choice(8, 4000, p=np.arange(1, 9) / 36)]
    return X, np.where((X.sum(1) > 1.5) ^ (rng.random(4000) < 0.1), "odd", "even")


def test_generative_training_reaches_the_entropy():
    X, y = majority()
    model = tiny(training="generative", learning_rate="auto", max_iter=150).fit(X, y)
    p, q = frequencies(X, y), joint_law(model)
    assert q.sum() == pytest.approx(1, abs=1e-5)
    assert 0 <= rel_entr(p, q).sum() < 0.02


def test_hybrid_training_learns_the_rows_too():
    X, y = majority()
    p, params = frequencies(X, y), {"max_iter": 20, "dropout": 0.0}
    both = tiny(generative_weight=0.5, **params).fit(X, y)
    labels_only = tiny(training="discriminative", **params).fit(X, y)
    assert rel_entr(p, joint_law(both)).sum() < 0.2
    assert rel_entr(p, joint_law(labels_only)).sum() > 1


def test_readers_agree_with_the_joint_law(fitted):
    p = joint_law(fitted)
    log_z = LayerSum()(fitted.energy_).value
    np.testing.assert_allclose(
        fitted.energy(BITS), -np.log(p.sum(1)) - log_z, atol=1e-5
    )
    given = p / p.sum(1, keepdims=True)
    np.testing.assert_allclose(fitted.predict_proba(BITS), given, atol=1e-5)
    np.testing.assert_allclose(
        fitted.decision_function(BITS), np.log(given[:, 1] / given[:, 0]), atol=1e-4
    )
    assert fitted.transform(BITS).shape == (8, 12)


def test_draws_follow_the_class(fitted):
    p = joint_law(fitted)
    for k, label in enumerate(fitted.classes_):
        rows = fitted.sample(2000, y=label, random_state=1)
        found = np.bincount((rows @ [1, 2, 4]).astype(int), minlength=8) / 2000
        assert np.abs(found - p[:, k] / p[:, k].sum()).sum() / 2 < 0.05
    rows = fitted.sample(2000, random_state=2)
    found = np.bincount((rows @ [1, 2, 4]).astype(int), minlength=8) / 2000
    assert np.abs(found - p.sum(1)).sum() / 2 < 0.05
    assert np.array_equal(rows, fitted.sample(2000, random_state=2))


def digits(seed=0):
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, test_size=0.3, random_state=seed)


def test_digits_beat_logistic_regression():
    X, X_test, y, y_test = digits()
    linear = LogisticRegression(max_iter=1000).fit(X, y).score(X_test, y_test)
    model = RBMClassifier(150, learning_rate=0.02, max_iter=60, random_state=0)
    assert model.fit(X, y).score(X_test, y_test) >= linear + 0.005


@pytest.mark.slow
@pytest.mark.parametrize("training", ["discriminative", "hybrid"])
def test_digits_beat_logistic_regression_with_defaults(training):
    X, X_test, y, y_test = digits()
    linear = LogisticRegression(max_iter=1000).fit(X, y).score(X_test, y_test)
    model = RBMClassifier(training=training, random_state=0)
    assert model.fit(X, y).score(X_test, y_test) >= linear


def test_rows_outside_the_domain(table):
    X, y = table
    with pytest.raises(DataDomainError, match=r"in \[0, 1\]; got values in \[-2, 2\]"):
        tiny().fit(4 * X - 2, y)
    model = tiny(binarize=0.0, max_iter=20).fit(4 * X - 2, y)
    np.testing.assert_array_equal(
        model.predict_proba(4 * BITS - 2), model.predict_proba(10 * BITS - 9)
    )


def test_one_class_and_unknown_labels(table, fitted):
    X, _ = table
    with pytest.raises(ValueError, match="two classes or more; got one class"):
        tiny().fit(X, ["odd"] * len(X))
    with pytest.raises(ValueError, match=r"labels \['none'\] that were not in fit"):
        fitted.sample(3, y="none")
    with pytest.raises(ValueError, match="n_samples must be >= 1"):
        fitted.sample(0)


def test_early_stopping_keeps_the_best_look(table):
    X, y = table
    params = {"early_stopping": True, "max_iter": 240, "dropout": 0.0}
    model = tiny(learning_rate=0.1, **params).fit(X, y)
    assert model.n_iter_ < 240
    looks = model.history_["valid_loss"]
    assert len(looks) < 40
    # Of the last five looks none is clearly better than the best before.
    assert looks[:-5].min() - looks[-5:].min() < 5e-4


def test_same_seed_same_machine_and_pickles(table):
    X, y = table
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    state = torch.random.get_rng_state()
    one, two = (tiny(max_iter=5).fit(frame, y) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    for name in ("components_", "class_components_", "intercept_classes_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    other = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(other.predict_proba(frame), one.predict_proba(frame))
    assert list(one.sample(2, y="odd").columns) == ["a", "b", "c"]
