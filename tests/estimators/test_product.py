"""Products of experts against products of Gaussians, mixtures and quadrature."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold

from skebm import DeepEBM, EnergyOutlierDetector, ProductOfExperts
from skebm.energies import Gaussians, Quadratic, Tilted
from skebm.exceptions import NotNormalizableError
from skebm.partition import SMC, ImportanceSampling

MEANS = np.array([[1.0, 90.0, -3.0], [-0.5, 110.0, -2.9]])
UNIT = np.array([1.0, 20.0, 0.1])
ROOTS = np.array(
    [
        [[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 0.7]],
        [[0.6, 0, 0], [-0.4, 1.2, 0], [0.3, 0.5, 1.1]],
    ]
)
COVARIANCES = [np.outer(UNIT, UNIT) * (root @ root.T) for root in ROOTS]
SHORT = {"max_iter": 1, "batch_size": 8192, "normalizer": None}
NORMALIZER = ImportanceSampling(4000)


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    return rng.normal(size=(90, 3)) * UNIT + [0.0, 100.0, -3.0]


@pytest.fixture(scope="module")
def stencil(X):
    """A fitted estimator; `gaussian` gives its copies another density."""
    return DeepEBM("quadratic", objective="sm", random_state=0, **SHORT).fit(X)


@pytest.fixture(scope="module")
def network(X):
    """An expert whose tilt is far from constant."""
    model = DeepEBM(
        "mlp", base="gaussian", max_iter=30, batch_size=1024, random_state=0
    )
    model.fit(np.vstack([X, X + 4 * UNIT]))
    assert isinstance(model.energy_, Tilted)
    return model


def tensors(*arrays):
    return [torch.tensor(np.asarray(a), dtype=torch.float64) for a in arrays]


def gaussian(stencil, mean, covariance, kind="quadratic", location=None, scale=None):
    """An expert whose density is exactly N(mean, covariance).

    "tilted": a base of four times the covariance and the quadratic tilt that undoes it.
    """
    model = copy.deepcopy(stencil)
    model.location_ = model.location_ if location is None else np.array(location)
    model.scale_ = model.scale_ if scale is None else np.array(scale)
    m, s = tensors(
        (mean - model.location_) / model.scale_,
        covariance / np.outer(model.scale_, model.scale_),
    )
    one = torch.ones(1, dtype=torch.float64)
    model.energy_ = Quadratic().match(m, s)
    log_z = model.energy_.log_partition()
    model.base_ = Gaussians().match(one, m[None], s[None])
    if kind == "gaussians":
        model.energy_, log_z = model.base_, 0.0
    if kind == "tilted":
        model.base_ = Gaussians().match(one, m[None], 4 * s[None])
        model.energy_ = Tilted(model.base_, Quadratic().match(m, s * 4 / 3))
        log_z = -len(m) * np.log(2.0)
    model.energy_.requires_grad_(False)
    model.log_partition_ = log_z + np.log(model.scale_).sum()
    model.calibration_energy_ = np.zeros(1)
    return model


def two(stencil, kind="quadratic"):
    """The two Gaussians as frozen experts; the second has units of its own."""
    other = {"location": [5.0, -40.0, 2.0], "scale": [3.0, 0.5, 10.0]}
    return [
        ("a", FrozenEstimator(gaussian(stencil, MEANS[0], COVARIANCES[0], kind))),
        (
            "b",
            FrozenEstimator(gaussian(stencil, MEANS[1], COVARIANCES[1], kind, **other)),
        ),
    ]


def exact(weights, means=MEANS, covariances=COVARIANCES):
    """Mean, covariance and log Z of prod_i N(x; m_i, S_i)^w_i."""
    precisions = [np.linalg.inv(covariance) for covariance in covariances]
    p = sum(w * q for w, q in zip(weights, precisions, strict=True))
    slope = sum(w * q @ m for w, q, m in zip(weights, precisions, means, strict=True))
    mean = np.linalg.solve(p, slope)
    law = multivariate_normal(mean, np.linalg.inv(p))
    at_mean = sum(
        w * multivariate_normal(m, s).logpdf(mean)
        for w, m, s in zip(weights, means, covariances, strict=True)
    )
    return mean, np.linalg.inv(p), at_mean - law.logpdf(mean)


def log_volume(model):
    return np.log(model.scale_).sum()


WEIGHTS = [(1.0, 1.0), (2.0, 0.5), (1.0, -0.1)]
KINDS = ["quadratic", "gaussians", "tilted"]


@pytest.mark.parametrize("kind", KINDS)
def test_experts_of_the_tests_are_the_gaussians_they_say(stencil, X, kind):
    for k, (_, frozen) in enumerate(two(stencil, kind)):
        expected = multivariate_normal(MEANS[k], COVARIANCES[k]).logpdf(X)
        np.testing.assert_allclose(frozen.score_samples(X), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_precisions_add(stencil, X, kind, weights):
    model = ProductOfExperts(two(stencil, kind), weights=weights, random_state=0)
    model.fit(X)
    mean, covariance, log_z = exact(weights)
    law = multivariate_normal(mean, covariance)
    z = torch.from_numpy((X - model.location_) / model.scale_)
    e, expected = model.energy_(z).numpy(), -law.logpdf(X)
    np.testing.assert_allclose(e - e[0], expected - expected[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.energy(X), e, rtol=1e-6)
    expected_log_z = log_z + sum(weights) * log_volume(model)
    assert model.log_partition_ == pytest.approx(expected_log_z, abs=0.02)
    low, high = model.log_partition_interval_
    assert low - 1e-6 <= expected_log_z <= high + 1e-6
    assert high - low < 0.02
    np.testing.assert_allclose(model.score_samples(X), law.logpdf(X), atol=0.02)
    assert (model.log_partition_ess_ == np.inf) == (kind == "quadratic")
    if kind == "gaussians":
        assert model.log_partition_ess_ > 0.9 * 400_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", [WEIGHTS[0], WEIGHTS[2]])
def test_samples_have_the_covariance_of_the_product(stencil, X, kind, weights):
    model = ProductOfExperts(two(stencil, kind), weights=weights, random_state=0)
    rows = model.fit(X).sample(20_000)
    mean, covariance, _ = exact(weights)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (rows - mean).T)
    np.testing.assert_allclose(np.cov(white), np.eye(3), atol=0.03)
    np.testing.assert_allclose(white.mean(1), 0.0, atol=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_given_a_column_follow_the_conditional_gaussian(stencil, X, kind):
    model = ProductOfExperts(two(stencil, kind), random_state=0).fit(X)
    rows = model.sample(4000, given={1: 120.0})
    mean, s, _ = exact((1.0, 1.0))
    slope = s[[0, 2], 1] / s[1, 1]
    left = s[np.ix_([0, 2], [0, 2])] - np.outer(slope, s[1, [0, 2]])
    expected = mean[[0, 2]] + slope * (120.0 - mean[1])
    white = (rows[:, [0, 2]] - expected) / np.sqrt(np.diag(left))
    np.testing.assert_allclose(white.mean(0), 0.0, atol=0.08)
    np.testing.assert_allclose(white.std(0), 1.0, atol=0.08)
    assert np.all(rows[:, 1] == 120.0)


def test_half_and_half_is_minus_the_bhattacharyya_distance(stencil, X):
    """log integral of sqrt(p q), known in closed form for two Gaussians."""
    model = ProductOfExperts(two(stencil, "tilted"), weights=[0.5, 0.5]).fit(X)
    pooled = (COVARIANCES[0] + COVARIANCES[1]) / 2
    apart = MEANS[0] - MEANS[1]
    log_det = np.linalg.slogdet(np.array([pooled, *COVARIANCES]))[1]
    distance = apart @ np.linalg.solve(pooled, apart) / 8
    distance += 0.5 * (log_det[0] - log_det[1:].mean())
    log_z = model.log_partition_ - log_volume(model)
    assert log_z == pytest.approx(-distance, abs=0.02)


@pytest.mark.parametrize(
    ("names", "weights"), [("a", [1.0]), ("a", None), ("ab", [0.5, 0.5])]
)
def test_shares_of_one_expert_are_that_expert(network, X, names, weights):
    experts = [(name, FrozenEstimator(network)) for name in names]
    model = ProductOfExperts(experts, weights=weights, random_state=1).fit(X)
    gain = model.score_samples(X) - network.score_samples(X)
    assert np.ptp(gain) < 1e-5
    width = np.ptp(model.log_partition_interval_)
    width += np.ptp(network.log_partition_interval_)
    assert abs(gain.mean()) <= width
    assert width < 0.05
    assert model.log_partition_ == pytest.approx(log_volume(model), abs=width)


def test_twice_one_expert_is_that_expert_at_half_the_temperature(network, X):
    model = ProductOfExperts([("a", FrozenEstimator(network))], weights=[2]).fit(X)
    np.testing.assert_allclose(
        np.diff(model.score_samples(X)),
        2 * np.diff(network.score_samples(X)),
        rtol=1e-5,
        atol=1e-5,
    )
    exact = SMC(2048)(
        model.energy_, base=model.base_, generator=torch.Generator().manual_seed(3)
    )
    expected = exact.value + log_volume(model)
    assert model.log_partition_ == pytest.approx(expected, abs=0.05)
    rows = model.sample(4000, random_state=5)
    np.testing.assert_allclose(model.energy(rows).mean(), mean_energy(model), rtol=0.03)


def mean_energy(model):
    """The mean of E under exp(-E), by weights of the base's draws."""
    z = model.base_.sample(100_000, generator=torch.Generator().manual_seed(7))
    e = model.energy_(z)
    return float(((model.base_(z) - e).softmax(0) * e).sum())


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.6, 1.7), (1.5, -0.3)])
def test_mixtures_of_one_column_against_quadrature(stencil, X, weights):
    """Two and three modes; the base keeps the modes of the product."""
    stencil = copy.deepcopy(stencil).set_params(random_state=0).fit(X[:, :1])
    experts = []
    for k, centers in enumerate([[-2.0, 2.0], [-3.0, 0.0, 2.5]]):
        model = copy.deepcopy(stencil)
        means, shares = tensors(centers, 1.0 + np.arange(len(centers)))
        spread = (0.3 + 0.4 * k) * torch.ones(len(means), 1, 1, dtype=torch.float64)
        model.energy_ = Gaussians().match(shares, means[:, None], spread)
        model.base_, model.log_partition_ = model.energy_, log_volume(model)
        experts.append((f"expert{k}", FrozenEstimator(model)))
    model = ProductOfExperts(experts, weights=weights, random_state=0).fit(X[:, :1])
    line = torch.linspace(-30, 30, 60_001, dtype=torch.float64)[:, None]
    expected = float((-model.energy_(line)).logsumexp(0)) + np.log(1e-3)
    assert model.log_partition_ - log_volume(model) == pytest.approx(expected, abs=0.02)
    density = np.exp(-model.energy_(line).numpy() - expected) * 1e-3
    z = (model.sample(20_000)[:, 0] - model.location_) / model.scale_
    for cut in (-2.5, -1.0, 0.0, 1.0, 2.25):
        share = density[line[:, 0].numpy() < cut].sum()
        assert np.mean(z < cut) == pytest.approx(share, abs=0.012)
    if weights == (1.0, 1.0):
        assert model.log_partition_ess_ > 0.9 * 400_000


def test_base_covers_many_components(stencil, X, rng):
    """65 times 65 components: the heaviest 64 still carry log Z."""
    model = copy.deepcopy(stencil)
    means, shares = tensors(rng.normal(size=(65, 3)), np.ones(65))
    spread = 0.5 * torch.eye(3, dtype=torch.float64).expand(65, 3, 3)
    model.energy_ = model.base_ = Gaussians().match(shares, means, spread)
    model.log_partition_ = log_volume(model)
    twice = [(name, FrozenEstimator(model)) for name in "ab"]
    model = ProductOfExperts(
        twice, normalizer=ImportanceSampling(40_000), random_state=0
    ).fit(X)
    assert len(model.base_.means) == 65
    low, high = model.log_partition_interval_
    apart = means[:, None] - means
    terms = -0.5 * apart.square().sum(2) - 1.5 * np.log(2 * np.pi)
    expected = float(terms.logsumexp((0, 1))) - 2 * np.log(65) + log_volume(model)
    assert model.log_partition_ == pytest.approx(expected, abs=0.02)
    assert high - low < 0.02


@pytest.mark.parametrize("normalizer", ["auto", None])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", [(1.0, -4.0), (-1.0, 0.0), (1.0, -1.0)])
def test_what_has_no_normaliser_is_refused(stencil, X, kind, weights, normalizer):
    experts = two(stencil, kind)
    if weights == (1.0, -1.0):
        experts = [experts[0], ("b", experts[0][1])]
    model = ProductOfExperts(experts, weights=weights, normalizer=normalizer)
    with pytest.raises(NotNormalizableError, match="integral"):
        model.fit(X)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_without_normalizer_there_is_no_score(stencil, X):
    model = ProductOfExperts(two(stencil), normalizer=None, random_state=0).fit(X)
    assert model.log_partition_ is None
    assert not hasattr(model, "score")
    assert np.isfinite(model.sample(4)).all()


def test_product_of_products_is_the_product_of_all(stencil, X):
    experts = two(stencil, "tilted")
    inner = ProductOfExperts(experts, weights=[1, 0.5], random_state=0).fit(X)
    nested = ProductOfExperts(
        [("inner", FrozenEstimator(inner)), experts[0]], weights=[2, 1], random_state=0
    ).fit(X)
    flat = ProductOfExperts(experts, weights=[3, 1], random_state=0).fit(X)
    np.testing.assert_allclose(
        nested.score_samples(X), flat.score_samples(X), atol=0.02
    )
    assert nested.get_params()["inner"].estimator is inner


def short(**params):
    return DeepEBM("mlp", base="gaussian", **(SHORT | params))


def pair(**params):
    experts = [("a", short()), ("b", DeepEBM("quadratic", objective="sm", **SHORT))]
    defaults = {"cv": None, "normalizer": NORMALIZER, "random_state": 0}
    return ProductOfExperts(experts, **(defaults | params))


def test_names_reach_the_experts(X):
    model = pair()
    params = model.get_params()
    assert params["a"] is model.estimators[0][1]
    assert params["b__objective"] == "sm"
    assert set(model.get_params(deep=False)) == set(ProductOfExperts([]).get_params())
    model.set_params(a__max_iter=3, weights=[1, 2], b=short(batch_size=128))
    assert model.estimators[0][1].max_iter == 3
    assert model.estimators[1][1].batch_size == 128
    with pytest.raises(ValueError, match="Invalid parameter 'c'"):
        model.set_params(c__max_iter=3)
    model.fit(X)
    assert model.named_estimators_["a"] is model.estimators_[0]
    assert model.named_estimators_.b is model.estimators_[1]
    assert model.named_estimators_["a"].n_iter_ == 3
    for _, expert in model.estimators:
        assert not hasattr(expert, "energy_")


@pytest.mark.parametrize("place", [0, 1])
def test_drop_leaves_an_expert_out_and_its_weight(stencil, X, place):
    experts = two(stencil)
    weights = [0.7, 1.6]
    name, kept = "ab"[place], 1 - place
    model = ProductOfExperts(experts, weights=weights, random_state=0)
    model.set_params(**{name: "drop"}).fit(X)
    alone = ProductOfExperts([experts[kept]], weights=[weights[kept]], random_state=0)
    np.testing.assert_array_equal(model.score_samples(X), alone.fit(X).score_samples(X))
    assert model.named_estimators_[name] == "drop"
    assert model.estimators_ == [experts[kept][1]]


def test_zero_weight_leaves_no_trace_in_the_energy(stencil, X):
    experts = two(stencil)
    model = ProductOfExperts(experts, weights=[0, 1], random_state=0).fit(X)
    alone = ProductOfExperts(experts[1:], random_state=0).fit(X)
    np.testing.assert_array_equal(model.energy(X), alone.energy(X))
    assert len(model.estimators_) == 2


def test_frozen_experts_are_not_touched(network, X):
    before, energy = pickle.dumps(network), network.energy(X)
    frozen = FrozenEstimator(network)
    model = ProductOfExperts([("a", frozen), ("b", frozen)], random_state=0).fit(X)
    assert model.estimators_[0] is frozen
    with torch.no_grad():
        for weight in model.energy_.parameters():
            weight += 1.0
    np.testing.assert_array_equal(network.energy(X), energy)
    assert pickle.dumps(network) == before
    assert clone(model).estimators[0][1].estimator is network


def test_experts_without_a_seed_get_their_own(X):
    model = ProductOfExperts(
        [("a", short()), ("b", short()), ("c", short(random_state=7))],
        cv=None,
        normalizer=NORMALIZER,
        random_state=0,
    ).fit(X)
    seeds = [expert.random_state for expert in model.estimators_]
    assert len(set(seeds)) == 3
    assert seeds[2] == 7
    alone = short(random_state=7).fit(X)
    np.testing.assert_array_equal(model.estimators_[2].energy(X), alone.energy(X))


def test_names_of_columns_reach_the_experts(X):
    frame = pd.DataFrame(X, columns=["width", "weight", "price"])
    model = pair().fit(frame)
    for expert in model.estimators_:
        assert list(expert.feature_names_in_) == list(frame.columns)
    assert np.isfinite(model.named_estimators_["a"].energy(frame)).all()
    frozen = [("a", FrozenEstimator(model.estimators_[0]))]
    with pytest.raises(ValueError, match="feature names"):
        ProductOfExperts(frozen).fit(frame[["weight", "width", "price"]])


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_frozen_expert_of_other_columns_is_refused(network, columns):
    model = ProductOfExperts([("a", FrozenEstimator(network))])
    message = f"X has {columns} features, but DeepEBM is expecting 3 features"
    with pytest.raises(ValueError, match=message):
        model.fit(np.random.default_rng(0).normal(size=(30, columns)))


@pytest.mark.parametrize(
    "expert",
    [
        EnergyOutlierDetector(),
        FrozenEstimator(EnergyOutlierDetector().fit(np.eye(3))),
        GaussianMixture(),
        DeepEBM,
        None,
        "pass",
    ],
    ids=repr,
)
def test_what_is_no_density_of_skebm_is_refused(expert, X):
    with pytest.raises(
        ValueError, match=r"as the expert 'a', .* or a ProductOfExperts"
    ):
        ProductOfExperts([("a", expert)]).fit(X)


@pytest.mark.parametrize(
    ("estimators", "message"),
    [
        ([], "list of"),
        ([short()], "list of"),
        ([(3, short())], "list of"),
        ([("a", "drop"), ("b", "drop")], "all 'drop'"),
        ([("a", short()), ("a", short())], "not unique"),
        ([("a__b", short())], "must not contain __"),
        ([("weights", short())], "conflict with constructor"),
        ([("a", short(random_state=-1))], "random_state"),
        ([("a", DeepEBM(max_iter=-1))], "max_iter"),
    ],
)
def test_malformed_experts_are_refused(estimators, message, X):
    with pytest.raises(ValueError, match=message):
        ProductOfExperts(estimators, cv=None).fit(X)


@pytest.mark.parametrize(
    "weights", [[1], [1, 1, 1], [[1, 1]], [1, np.nan], [np.inf, 1], [0, 0], ["x", 1]]
)
def test_malformed_weights_are_refused(weights, X):
    with pytest.raises(ValueError, match=r"weights|could not convert"):
        pair(weights=weights).fit(X)


def test_unfitted_frozen_expert_is_refused(X):
    with pytest.raises(NotFittedError):
        ProductOfExperts([("a", FrozenEstimator(short()))]).fit(X)


def test_clone_and_pickle(X):
    model = pair(weights=[1.0, 0.5]).fit(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    np.testing.assert_array_equal(again.sample(5), model.sample(5))
    fresh = clone(model)
    assert fresh.estimators[0][1] is not model.estimators[0][1]
    assert fresh.weights == [1.0, 0.5]
    np.testing.assert_array_equal(fresh.fit(X).score_samples(X), model.score_samples(X))


def test_grid_search_over_experts_and_weights(X):
    """Held-out likelihood prefers one copy of a good density to two."""
    grid = {"a__max_iter": [1, 2], "weights": [[1, 0], [1, 1], [3, 3]], "b": ["drop"]}
    search = GridSearchCV(pair(), grid, cv=2, error_score="raise").fit(X)
    results = pd.DataFrame(search.cv_results_)
    assert len(results) == 6
    assert search.best_params_["weights"][0] == 1
    by_weight = results.groupby(results["param_weights"].astype(str))
    scores = by_weight["mean_test_score"].max()
    assert scores["[1, 0]"] == pytest.approx(scores["[1, 1]"], abs=1e-9)
    assert scores["[1, 1]"] > scores["[3, 3]"] + 0.5
    assert search.best_estimator_.named_estimators_["b"] == "drop"


@pytest.mark.parametrize(("cv", "n_known"), [(None, 90), (0.2, 18), (3, 90)], ids=repr)
def test_rows_that_calibrate(X, cv, n_known):
    model = pair(cv=cv).fit(X)
    assert len(model.calibration_energy_) == n_known
    energy = model.energy(X)
    if cv is None:
        np.testing.assert_array_equal(model.calibration_energy_, np.sort(energy))
    if cv == 0.2:
        assert set(model.calibration_energy_) < set(energy)
        assert model.estimators_[0].location_[0] != model.location_[0]
    if cv == 3:
        assert not set(model.calibration_energy_) & set(energy)


@pytest.mark.parametrize("cv", [5, 0.2, None])
def test_frozen_experts_calibrate_on_every_row(stencil, X, cv):
    model = ProductOfExperts(two(stencil), cv=cv, random_state=0).fit(X)
    np.testing.assert_array_equal(model.calibration_energy_, np.sort(model.energy(X)))


def test_out_of_fold_energies_are_those_of_products_of_the_other_rows(X):
    """24 rows: experts of 19 rows are single Gaussians, without any training."""
    rows = X[:24]
    experts = [(name, DeepEBM(**SHORT, random_state=0)) for name in "ab"]
    params = {"weights": [1.0, 0.5], "normalizer": NORMALIZER, "random_state": 0}
    model = ProductOfExperts(experts, cv=5, **params).fit(rows)
    expected = np.empty(24)
    folds = KFold(5, shuffle=True, random_state=model._fit_seed)
    for seen, unseen in folds.split(rows):
        part = ProductOfExperts(experts, cv=None, **params).fit(rows[seen])
        expected[unseen] = part.score_samples(rows[unseen])
    known = -model.calibration_energy_ - model.log_partition_
    np.testing.assert_allclose(np.sort(known), np.sort(expected), atol=0.05)
    inside = ProductOfExperts(experts, cv=None, **params).fit(rows)
    assert known.mean() < inside.score_samples(rows).mean() - 0.1


@pytest.mark.slow
def test_out_of_fold_p_values_keep_their_rate(rng):
    """Nominal 5% on fresh rows, where training rows would promise too little."""
    X, fresh = rng.normal(size=(150, 8)), rng.normal(size=(4000, 8))
    experts = [("a", DeepEBM(max_iter=5, random_state=0))]
    rates = [
        np.mean(
            ProductOfExperts(experts, cv=cv, random_state=0).fit(X).predict(fresh) == -1
        )
        for cv in (5, None)
    ]
    assert 0.02 < rates[0] < 0.09
    assert rates[1] > rates[0]


def test_interrupted_expert_leaves_nothing_fitted(monkeypatch, X):
    calls = []
    fit = DeepEBM.fit

    def interrupted(self, X, y=None):
        calls.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(DeepEBM, "fit", interrupted)
    model = pair()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    with pytest.raises(NotFittedError):
        model.predict(X)
    monkeypatch.setattr(DeepEBM, "fit", fit)
    assert np.isfinite(model.fit(X).score(X))
    assert len(calls) == 1


def test_diagnose(X):
    model = pair().fit(X)
    table = model.diagnose(50)
    assert table["rhat"].max() < 1.1
    assert list(table.index[:3]) == [0, 1, 2]
