"""Outlier exposure: hinges by hand, gradients, margins, units, and what it brings."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, train_test_split

from skebm import DeepEBM, JEMClassifier
from skebm.energies import MLP, JointNetwork
from skebm.metrics import fpr_at_tpr
from skebm.objectives import NoiseContrastive, OutlierExposure, Regularized

OUTLIERS = np.array([[4.0, 0.0], [0.0, -4.0], [3.0, 3.0]])
QUICK = {
    "generative": "network",
    "calibration": None,
    "max_iter": 5,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(k=3):
    energy = JointNetwork(MLP((8,)), k).build(2, generator=generator()).double()
    with torch.no_grad():
        for weight in energy.parameters():
            weight += torch.randn(weight.shape, generator=generator(1))
    return energy


def rows(n=5):
    return torch.randn(n, 2, generator=generator(2), dtype=torch.float64)


def value(objective, energy, x, seed=3):
    state = objective.init(energy, x, generator=generator())
    return objective(energy, x, state, generator=generator(seed)).value


def test_loss_by_hand():
    """A single outlier is drawn for sure."""
    energy, x = network(), rows()
    objective = OutlierExposure(OUTLIERS[:1], inlier_margin=-2.0, outlier_margin=1.5)
    g = [energy.logits(torch.as_tensor(r)).detach().numpy() for r in (x, OUTLIERS[:1])]
    inside, outside = (-np.log(np.exp(part).sum(1)) for part in g)
    expected = np.mean(np.maximum(0, inside + 2.0) ** 2)
    expected += np.mean(np.maximum(0, 1.5 - outside) ** 2)
    assert expected > 0.1
    found = value(objective, energy, x).item()
    assert found == pytest.approx(expected, rel=0, abs=1e-10)


def test_outliers_are_drawn_alike():
    energy, x = network(), torch.zeros(30_000, 2).double()
    objective = OutlierExposure(OUTLIERS, -100.0, 50.0)
    e = energy(torch.as_tensor(OUTLIERS)).detach()
    inside = (energy(x[:1]).detach() + 100).square()
    expected = inside + (50 - e).clamp(min=0).square().mean()
    found = value(objective, energy, x)
    assert found.item() == pytest.approx(expected.item(), rel=2e-3)


def test_gradients_are_those_of_finite_differences():
    energy, x = network(), rows()
    objective = OutlierExposure(OUTLIERS, -3.0, 3.0)
    weights = dict(energy.named_parameters())

    def loss(*values):
        named = dict(zip(weights, values, strict=True))
        return torch.func.functional_call(
            Called(objective, energy, x), {f"energy.{k}": v for k, v in named.items()}
        )

    starts = tuple(w.detach().clone().requires_grad_() for w in weights.values())
    assert torch.autograd.gradcheck(loss, starts)


class Called(torch.nn.Module):
    def __init__(self, objective, energy, x):
        super().__init__()
        self.objective, self.energy, self.x = objective, energy, x

    def forward(self):
        return value(self.objective, self.energy, self.x)


def test_loss_is_zero_beyond_the_margins():
    """With three logits -x_0 the energy is x_0 - log 3."""
    energy = JointNetwork(None, 3).build(2).double()
    energy.logits.last.weight.data[:, 0] = -1.0
    x, outliers = torch.zeros(4, 2).double(), [[5.0, 0.0], [7.0, 1.0]]
    low, high = -np.log(3), 5 - np.log(3)
    assert value(OutlierExposure(outliers, low, high), energy, x).item() < 1e-20
    found = value(OutlierExposure(outliers, low - 2, high - 1), energy, x)
    assert found.item() == pytest.approx(4.0)
    found = value(OutlierExposure(outliers[:1], low, high + 3), energy, x)
    assert found.item() == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("margins", "expected"),
    [
        ({}, (-np.log(3) - 5, -np.log(3))),
        ({"outlier_margin": 2}, (-3, 2)),
        ({"inlier_margin": -9.0}, (-9, -np.log(3))),
        ({"inlier_margin": -25.0, "outlier_margin": -7.0}, (-25, -7)),
    ],
    ids=str,
)
def test_margins(margins, expected):
    state = OutlierExposure(OUTLIERS, **margins).init(
        network(), rows(), generator=generator()
    )
    np.testing.assert_allclose(state.margins.numpy(), expected)


def test_logits_of_zero_lie_at_the_outlier_margin():
    energy = JointNetwork(None, 3).build(2)
    x = torch.zeros(4, 2)
    found = value(OutlierExposure(OUTLIERS), energy, x)
    assert found.item() == pytest.approx(25.0, abs=1e-4)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (OutlierExposure(OUTLIERS[:, :1]), r"shape \(3, 1\), but expected \(m, 2\)"),
        (OutlierExposure(OUTLIERS[0]), r"shape \(2,\)"),
        (OutlierExposure(OUTLIERS[:0]), r"shape \(0, 2\)"),
        (OutlierExposure([[np.nan, 1.0], [1.0, 1.0]]), "infinity in 1 of 2 rows"),
        (OutlierExposure([[np.inf, 1.0]]), "infinity in 1 of 1 rows"),
        (OutlierExposure(OUTLIERS, 1.0, 1.0), "inlier_margin < outlier_margin"),
        (OutlierExposure(OUTLIERS, 1.0), "inlier_margin < outlier_margin"),
        (OutlierExposure(OUTLIERS, np.nan), "inlier_margin=nan"),
        (OutlierExposure(OUTLIERS, "none"), "inlier_margin='none'"),
    ],
    ids=lambda value: "",
)
def test_values_that_do_not_fit_are_refused(objective, message):
    with pytest.raises(ValueError, match=message):
        objective.init(network(), rows(), generator=generator())


def test_other_energies_are_refused():
    energy = MLP((4,)).build(2)
    with pytest.raises(TypeError, match="a JointNetwork, but got MLP"):
        OutlierExposure(OUTLIERS).init(energy, rows(), generator=generator())


def test_clone_pickle_and_repr():
    objective = OutlierExposure(OUTLIERS, inlier_margin=-7.0)
    for again in (clone(objective), pickle.loads(pickle.dumps(objective))):
        np.testing.assert_array_equal(again.outliers, OUTLIERS)
        assert again.outliers is not objective.outliers
        assert again.get_params()["inlier_margin"] == -7.0
        assert repr(again) == repr(objective)
    assert objective == objective
    assert objective != clone(objective)
    assert "inlier_margin=-7.0" in repr(JEMClassifier(objective=objective))


def test_outliers_are_scaled_as_the_rows(iris):
    """Rows and outliers in other units train the same model."""
    X, y = iris
    far = X.max(0) + X[:20]
    fit = [
        JEMClassifier(objective=OutlierExposure(F), **QUICK).fit(A, y)
        for A, F in ((X, far), (1000 * X + 7, 1000 * far + 7))
    ]
    e = fit[0].energy(np.vstack([X, far]))
    np.testing.assert_allclose(
        fit[1].energy(1000 * np.vstack([X, far]) + 7), e, rtol=1e-3
    )
    state = fit[0]._recipe().params["objective"]
    z = (far - fit[0].location_) / fit[0].scale_
    np.testing.assert_allclose(np.asarray(state.outliers), z)


def test_estimator_leaves_its_objective_alone(iris):
    X, y = iris
    objective = OutlierExposure(X + 10)
    JEMClassifier(objective=objective, **QUICK).fit(X, y)
    np.testing.assert_array_equal(objective.outliers, X + 10)


def test_penalties_around_it_scale_its_outliers_too(iris):
    X, y = iris
    objective = Regularized(OutlierExposure(X + 10), energy=0.01)
    model = JEMClassifier(objective=objective, **QUICK).fit(X, y)
    scaled = model._recipe().params["objective"].objective.outliers
    np.testing.assert_allclose(scaled, (X + 10 - model.location_) / model.scale_)


def test_objectives_without_rows_prepare_nothing():
    objective = NoiseContrastive()
    assert objective.prepared(None) is objective


def test_other_columns_are_refused(iris):
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    cases = [
        (X[:, :3], X, "3 features, but JEMClassifier is expecting 4"),
        (np.where(X > 5, np.nan, X), X, "must be rows like X: Input X contains NaN"),
        (frame[list("badc")], frame, "feature names"),
    ]
    for outliers, table, message in cases:
        model = JEMClassifier(objective=OutlierExposure(outliers), **QUICK)
        with pytest.raises(ValueError, match=message):
            model.fit(table, y)


@pytest.mark.parametrize("kind", ["tilted", "patterns", None])
def test_densities_without_logits_alone_are_refused(kind, iris):
    X, y = iris
    model = JEMClassifier(objective=OutlierExposure(X), **QUICK | {"generative": kind})
    with pytest.raises((ValueError, TypeError), match="network'"):
        model.fit(X, y)


def test_other_estimators_say_what_it_is_for(iris):
    with pytest.raises(TypeError, match="generative='network'"):
        DeepEBM(objective=OutlierExposure(iris[0]), max_iter=1).fit(iris[0])


def test_search_over_a_margin(iris):
    X, y = iris
    model = JEMClassifier(objective=OutlierExposure(X + 4), **QUICK)
    grid = {"objective__outlier_margin": [-1.0, 3.0], "generative_weight": [0.1]}
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert search.best_estimator_.objective.outlier_margin in (-1.0, 3.0)
    assert search.best_score_ > 0.5


def test_streams_and_rows_without_labels_take_it(iris):
    X, y = iris
    model = JEMClassifier(objective=OutlierExposure(X + 4), **QUICK)
    part = np.where(np.arange(150) % 3 == 0, y, -1)
    for _ in range(30):
        model.partial_fit(X, part, classes=[0, 1, 2])
    assert model.energy(X + 4).mean() > model.energy(X).mean() + 1
    assert {"generative_energy", "generative_outlier_energy"} <= set(model.history_)


def exposed(digit, outliers, seed):
    """Return accuracy, and AUROC and FPR95 of a digit and of noise, without and with.

    ``outliers`` makes rows from the training rows and a Generator.
    """
    X, y = load_digits(return_X_y=True)
    A, B, a, b = train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)
    rng, known = np.random.default_rng(seed), b != digit
    A, a = A[a != digit], a[a != digit]
    shared = {"calibration": None, "random_state": seed}
    plain = JEMClassifier(generative=None, **shared).fit(A, a)
    objective = OutlierExposure(outliers(A, rng))
    taught = JEMClassifier(generative="network", objective=objective, **shared)
    noise = rng.uniform(0, 16, (len(B), 64))
    found = []
    for model in (plain, taught.fit(A, a)):
        figures = [model.score(B[known], b[known])]
        for strange in (B[~known], noise):
            table = np.vstack([B[known], strange])
            truth, e = np.arange(len(table)) >= known.sum(), model.energy(table)
            figures += [roc_auc_score(truth, e), fpr_at_tpr(truth, e)]
        found.append(figures)
    return found


def test_noise_is_told_from_digits():
    plain, taught = exposed(3, lambda A, rng: rng.uniform(0, 16, A.shape), seed=0)
    assert taught[0] >= plain[0] - 0.01
    assert taught[3] > 0.999 >= plain[3]
    assert taught[4] < 0.01 < plain[4]


@pytest.mark.slow
def test_shuffled_columns_teach_what_an_unseen_digit_is():
    """Ten seeds, a digit each; no row of the digit is in the outliers."""
    found = [exposed(s, lambda A, rng: rng.permuted(A, axis=0), s) for s in range(10)]
    plain, taught = np.mean(found, 0)
    assert taught[0] >= plain[0] - 0.01
    assert taught[1] > plain[1] + 0.02
    assert taught[2] < plain[2] - 0.05
