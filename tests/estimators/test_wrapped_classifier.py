"""EnergyOutlierDetector around classifiers: E(x) = -log sum_k exp(f_k(x))."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import expit, logsumexp
from scipy.stats import norm
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from skebm import EnergyOutlierDetector, JEMClassifier
from skebm.metrics import fpr_at_tpr

CLASSIFIERS = {
    "logistic": LogisticRegression(max_iter=500),
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    "search": GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=2),
    "machine": SVC(),
    "ridge": RidgeClassifier(),
}


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def detector(classifier, **params):
    return EnergyOutlierDetector(FrozenEstimator(classifier), random_state=0, **params)


class Given(LogisticRegression):
    """A classifier whose logits are the columns of X."""

    def decision_function(self, X):
        X = np.asarray(X)
        return X[:, 0] if len(self.classes_) == 2 else X


def test_energy_on_hand_data():
    X = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [-1000.0, 5.0, 2.0]])
    three = Given().fit(X, [0, 1, 2])
    expected = [
        -np.log(3.0),
        -np.log(np.e + np.e**2 + np.e**3),
        -5 - np.log(1 + np.exp(-3.0)),
    ]
    found = detector(three).fit(X).energy(X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    two = Given().fit(X, [0, 1, 1])
    f = X[:, 0]
    expected = -np.log(np.exp(-f[:2] / 2) + np.exp(f[:2] / 2))
    found = detector(two).fit(X).energy(X)
    np.testing.assert_allclose(found[:2], expected, rtol=0, atol=1e-12)
    assert found[2] == pytest.approx(-500.0)


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifiers(name, n_classes, iris):
    X, y = iris
    y = np.minimum(y, n_classes - 1)
    fitted = CLASSIFIERS[name].fit(X, y)
    f = fitted.decision_function(X)
    logits = np.stack([-f / 2, f / 2], 1) if n_classes == 2 else f
    model = detector(fitted).fit(X)
    np.testing.assert_allclose(
        model.energy(X), -logsumexp(logits, axis=1), rtol=0, atol=1e-12
    )
    assert model.log_partition_ is None
    assert not hasattr(model, "score")
    assert np.isfinite(model.explain(X[:2])).all()
    assert 0.01 <= np.mean(model.predict(X) == -1) <= 0.15
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.p_values(X), model.p_values(X))


def test_two_logits_have_the_right_softmax_and_no_order(iris):
    X, y = iris
    X, y = X[50:], y[50:]
    one, other = LogisticRegression().fit(X, y), LogisticRegression().fit(X, -y)
    e = detector(one).fit(X).energy(X)
    np.testing.assert_allclose(detector(other).fit(X).energy(X), e, atol=1e-3)
    f = one.decision_function(X)
    np.testing.assert_allclose(np.exp(f / 2 + e), one.predict_proba(X)[:, 1])
    np.testing.assert_allclose(expit(f), one.predict_proba(X)[:, 1])


def test_temperature_of_logits(iris):
    """From T = 1 on to the largest logit: T log 3 bounds the gap."""
    X, y = iris
    model = LogisticRegression(max_iter=1000).fit(X, y)
    logits = model.decision_function(X)
    for t in (0.01, 2.0):
        found = EnergyOutlierDetector(FrozenEstimator(model), temperature=t).fit(X)
        expected = -t * logsumexp(logits / t, axis=1)
        np.testing.assert_allclose(found.energy(X), expected)
    gap = logits.max(1) + EnergyOutlierDetector(
        FrozenEstimator(model), temperature=0.01
    ).fit(X).energy(X)
    assert np.abs(gap).max() <= 0.01 * np.log(3) + 1e-9
    for other in (None, GaussianMixture()):
        with pytest.raises(ValueError, match="Got a temperature"):
            EnergyOutlierDetector(other, temperature=2.0).fit(X)


def test_two_gaussians_against_quadrature():
    """Classes N(+-m, I), anomalies N(0, I): E falls in |f|, and f is Gaussian.

    With the right logit f(x) = 2 m'x, f is N(+-2|m|^2, 4|m|^2) in the classes and
    N(0, 4|m|^2) for the anomalies.
    """
    rng, n, m = np.random.default_rng(0), 40_000, np.array([1.0, 0.5])
    y = rng.integers(0, 2, 2 * n)
    X = rng.normal(size=(2 * n, 2)) + np.where(y[:, None] == 1, m, -m)
    model = detector(LogisticRegression().fit(X[:n], y[:n])).fit(X[:n])
    scores = model.energy(np.vstack([X[n:], rng.normal(size=(n, 2))]))
    truth = np.arange(2 * n) >= n
    mean, sd = 2 * m @ m, 2 * np.sqrt(m @ m)
    inside = norm(mean, sd)

    def share_below(t):
        """P(|f| < t) of the classes; by symmetry that of one."""
        return inside.cdf(t) - inside.cdf(-t)

    def density(t):
        """Density of |f| of the anomalies."""
        return 2 * norm.pdf(t, scale=sd)

    auc = quad(lambda t: (1 - share_below(t)) * density(t), 0, 20 * sd)[0]
    assert roc_auc_score(truth, scores) == pytest.approx(auc, abs=0.01)
    found_95 = sd * norm.ppf(0.975)
    assert fpr_at_tpr(truth, scores) == pytest.approx(share_below(found_95), abs=0.01)


def test_fpr95_is_its_definition_on_hand_data():
    """19 of 20 anomalies lie above 1.5, and so do two of five normal rows."""
    normal, anomalies = [0.0, 1.0, 1.4, 1.6, 9.0], [0.5, *np.arange(19) + 1.5]
    truth = np.repeat([0, 1], [5, 20])
    assert fpr_at_tpr(truth, normal + anomalies) == pytest.approx(2 / 5)


def test_score_samples_goes_before_logits(iris):
    X, y = iris
    model = JEMClassifier(max_iter=1, calibration=None, random_state=0).fit(X, y)
    found = detector(model).fit(X)
    np.testing.assert_array_equal(found.energy(X), -model.score_samples(X))
    assert found.log_partition_ == 0.0
    model = model.set_params(generative="network").fit(X, y)
    assert detector(model).fit(X).log_partition_ is None


def test_frames_keep_their_names(iris):
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = detector(LogisticRegression(max_iter=500).fit(frame, y)).fit(frame)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("badc")])


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LogisticRegression(), "the classifier LogisticRegression, but the fit of a"),
        (make_pipeline(StandardScaler(), LinearSVC()), "the classifier LinearSVC"),
        (JEMClassifier(), "the classifier JEMClassifier"),
        (RandomForestClassifier(), "the classifier RandomForestClassifier"),
        (FrozenEstimator(RandomForestClassifier()), "probabilities but no logits"),
        (FrozenEstimator(make_pipeline(RandomForestClassifier())), "RandomForest"),
    ],
    ids=lambda value: "",
)
def test_classifiers_that_have_no_energy(estimator, message, iris):
    with pytest.raises(ValueError, match=message):
        EnergyOutlierDetector(estimator).fit(iris[0])


def test_frozen_classifier_must_be_fitted(iris):
    with pytest.raises(NotFittedError):
        detector(LogisticRegression()).fit(iris[0])


@pytest.mark.parametrize("n_classes", [3, 4])
def test_one_vs_one_is_refused(n_classes, rng):
    """With three classes there are as many pairs as classes."""
    X, y = rng.normal(size=(80, 2)), np.arange(80) % n_classes
    pairs = SVC(decision_function_shape="ovo").fit(X, y)
    for classifier in (pairs, make_pipeline(pairs).fit(X, y)):
        with pytest.raises(ValueError, match=r"for each pair of them"):
            detector(classifier).fit(X)


class Signed(StandardScaler):
    def decision_function(self, X):
        return np.asarray(X)[:, 0]


def test_what_is_no_classifier_needs_score_samples(iris):
    with pytest.raises(ValueError, match="Got Signed, which has no score_samples"):
        EnergyOutlierDetector(Signed()).fit(iris[0])
