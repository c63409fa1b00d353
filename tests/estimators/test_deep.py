"""DeepEBM against densities that are known: likelihood, normaliser, draws, settings."""

import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV

from skebm import DeepEBM
from skebm.energies import MLP, Bowl, Box, Constrained, Gaussians, Quadratic, Tilted
from skebm.estimators.runs import Fit, Runs
from skebm.estimators.weighting import counted
from skebm.exceptions import (
    DivergenceError,
    InterruptedFitWarning,
    NotNormalizableError,
)
from skebm.objectives import DenoisingScoreMatching, NoiseContrastive
from skebm.partition import ImportanceSampling, Quadrature
from skebm.samplers import HMC, MALA

FEW = ImportanceSampling(20_000)
COVARIANCE = np.array([[1.0, 0.8, 0.0], [0.8, 4.0, -0.5], [0.0, -0.5, 0.25]])
MEAN = np.array([0.0, 10.0, -3.0])


def gaussian_rows(n, seed=0):
    return np.random.default_rng(seed).multivariate_normal(MEAN, COVARIANCE, n)


def eight_gaussians(n, seed=0):
    rng = np.random.default_rng(seed)
    angle = 2 * math.pi * rng.integers(8, size=n) / 8
    center = 4 * np.column_stack([np.cos(angle), np.sin(angle)])
    return center + 0.5 * rng.normal(size=(n, 2))


def checkerboard(n, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-4, 4, size=(4 * n, 2))
    return rows[np.floor(rows / 2).sum(1) % 2 == 0][:n]


def two_moons(n, seed=0):
    rng = np.random.default_rng(seed)
    angle, upper = rng.uniform(0, math.pi, n), rng.random(n) < 0.5
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    return np.column_stack([x, y]) + 0.1 * rng.normal(size=(n, 2))


MINUS_ENTROPY = {eight_gaussians: -3.527, checkerboard: -3.466, two_moons: -0.996}


def quadratic_model(**params):
    """The exact model of Gaussian rows, fitted by score matching."""
    return DeepEBM(
        "quadratic", objective="sm", base=None, max_iter=30, random_state=0, **params
    )


@pytest.fixture(scope="module")
def normal():
    return DeepEBM(base="gaussian", max_iter=2, normalizer=FEW, random_state=0).fit(
        gaussian_rows(600)
    )


def entropy():
    return 0.5 * np.linalg.slogdet(2 * math.pi * math.e * COVARIANCE)[1]


def test_log_density_is_normalised_in_the_units_of_the_columns(normal):
    score = normal.score(gaussian_rows(20_000, seed=1))
    assert score == pytest.approx(-entropy(), abs=0.06)
    low, high = normal.log_partition_interval_
    assert low <= normal.log_partition_ <= high
    assert high - low < 0.05
    assert normal.log_partition_ess_ > 1000


def test_quadratic_energy_has_the_log_partition_in_closed_form():
    """E is quadratic in (x - location) / scale, so log Z adds sum log s."""
    model = quadratic_model().fit(gaussian_rows(4000))
    assert isinstance(model.energy_, Quadratic)
    expected = model.energy_.log_partition() + np.log(model.scale_).sum()
    assert model.log_partition_ == pytest.approx(expected, abs=1e-6)
    assert model.log_partition_ess_ == math.inf
    assert model.score(gaussian_rows(20_000, seed=1)) == (
        pytest.approx(-entropy(), abs=0.02)
    )


def test_a_change_of_units_moves_the_log_density_by_its_volume(normal):
    units = np.array([1e-3, 1.0, 1e4])
    other = clone(normal).fit(gaussian_rows(600) * units)
    x = gaussian_rows(50, seed=1)
    shift = np.log(units).sum()
    np.testing.assert_allclose(
        other.score_samples(x * units) + shift, normal.score_samples(x), atol=0.02
    )


def test_out_of_fold_log_densities_become_energies_of_the_model(normal):
    """E = -log p(z) - log Z(z), whatever log Z is."""
    x, model = gaussian_rows(200, seed=2), pickle.loads(pickle.dumps(normal))
    model.log_partition_ += 5.0
    log_density = model.score_samples(x) + np.log(model.scale_).sum()
    every = np.arange(len(x))
    fit = Fit(model.energy_, model.base_, every, log_density, {}, 1)
    model._finish(counted(x), fit)
    np.testing.assert_allclose(
        model.calibration_energy_, np.sort(model.energy(x)), atol=1e-4
    )


def test_calibration_without_a_normaliser_does_not_depend_on_the_units(normal):
    """Out-of-fold energies compare with those of new rows, whatever the units."""
    model = clone(normal).set_params(normalizer=None)
    for units in ([1.0, 1.0, 1.0], [1e-3, 1.0, 1e-4]):
        model.fit(gaussian_rows(600) * units)
        alarms = model.predict(gaussian_rows(4000, seed=1) * units) == -1
        assert 0.02 < alarms.mean() < 0.09


def test_draws_have_the_moments_of_the_rows(normal):
    drawn = normal.sample(20_000)
    x = gaussian_rows(600)
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.15)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(x.T), rtol=0.2, atol=0.1)


@pytest.mark.parametrize("sampler", ["auto", "hmc", "mala", "tempering"])
def test_conditional_draws_have_the_conditional_moments(sampler):
    """x0 given x1 = 14: mean .8 / 4 * 4, variance 1 - .8^2 / 4; x2: -3 - .125 * 4."""
    model = quadratic_model(sampler=sampler).fit(gaussian_rows(20_000))
    drawn = model.sample(4000, given={1: 14.0})
    assert (drawn[:, 1] == 14.0).all()
    np.testing.assert_allclose(drawn.mean(0)[[0, 2]], [0.8, -3.5], atol=0.06)
    variance = [1 - 0.8**2 / 4, 0.25 - 0.5**2 / 4]
    np.testing.assert_allclose(drawn.var(0)[[0, 2]], variance, rtol=0.08)


def test_conditional_draws_of_a_tilted_base(normal):
    drawn = normal.sample(4000, given={1: 14.0})
    assert (drawn[:, 1] == 14.0).all()
    np.testing.assert_allclose(drawn.mean(0)[[0, 2]], [0.8, -3.5], atol=0.15)


def test_given_columns_by_name_keep_their_values():
    frame = pd.DataFrame(gaussian_rows(100), columns=["a", "b", "c"])
    model = DeepEBM(base="gaussian", max_iter=1, normalizer=FEW, random_state=0)
    drawn = model.fit(frame).sample(5, given={"b": 10.1, "c": -3})
    assert list(drawn.columns) == ["a", "b", "c"]
    assert (drawn["b"] == 10.1).all()
    assert (drawn["c"] == -3).all()
    assert drawn["a"].nunique() == 5
    wrong = [({"d": 1}, "'d'"), ({0: math.nan}, "finite"), ({0: 1, 1: 1, 2: 1}, "out")]
    wrong += [({"a": "x"}, "a number"), ({"a": 1, 0: 2}, "named once")]
    for given, message in wrong:
        with pytest.raises(ValueError, match=message):
            model.sample(given=given)


def test_diagnose_has_a_line_per_column(normal):
    table = normal.diagnose(n_draws=100)
    assert list(table.index) == [0, 1, 2, "energy"]
    assert (table["rhat"] < 1.03).all()
    assert (table["ess"] > 1000).all()
    np.testing.assert_allclose(table["mean"][:3], MEAN, atol=0.2)
    np.testing.assert_allclose(
        table["sd"][:3], np.sqrt(COVARIANCE.diagonal()), rtol=0.15
    )
    assert 0.5 < table["acceptance"].iloc[0] <= 1
    assert abs(table["energy_gap"].iloc[0]) < 0.3


def test_strings_stand_for_values():
    x = gaussian_rows(300)
    short = {"max_iter": 1, "base": None, "normalizer": None, "random_state": 0}
    by_name = DeepEBM("quadratic", objective="dsm", **short).fit(x)
    by_value = DeepEBM(Quadratic(), objective=DenoisingScoreMatching(), **short).fit(x)
    np.testing.assert_array_equal(by_name.energy(x), by_value.energy(x))


def test_the_argument_energy_and_the_method_energy_live_together():
    value = MLP(hidden=(8,))
    model = DeepEBM(value, max_iter=1, normalizer=FEW, random_state=0)
    assert model.get_params(deep=False)["energy"] is value
    assert model.get_params()["energy__hidden"] == (8,)
    model.set_params(energy__hidden=(4,))
    assert value.hidden == (4,)
    x = gaussian_rows(60)
    assert model.fit(x).energy(x).shape == (60,)
    assert value.get_params() == MLP(hidden=(4,)).get_params()
    assert not value.state_dict()
    assert repr(clone(model)) == repr(model)


def test_a_network_gets_a_base_and_a_confined_energy_none():
    x, short = gaussian_rows(60), {"max_iter": 1, "normalizer": None}
    network = DeepEBM(MLP((8,)), **short, random_state=0).fit(x)
    assert isinstance(network.energy_, Tilted)
    confined = DeepEBM(MLP((8,)) + Bowl(), **short, random_state=0).fit(x)
    assert not isinstance(confined.energy_, Tilted)


def test_a_fitted_mixture_as_base_is_not_fitted_again():
    mixture = GaussianMixture(2, random_state=0).fit(
        np.random.default_rng(0).normal(size=(50, 3))
    )
    means = mixture.means_.copy()
    model = DeepEBM(
        base=FrozenEstimator(mixture), max_iter=1, normalizer=FEW, random_state=0
    ).fit(gaussian_rows(100))
    np.testing.assert_array_equal(mixture.means_, means)
    np.testing.assert_allclose(model.base_.means[:2].numpy(), means, rtol=1e-6)


def test_score_is_refused_without_a_normaliser(normal):
    model = clone(normal).set_params(normalizer=None).fit(gaussian_rows(60))
    assert model.log_partition_ is None
    assert model.log_partition_interval_ is None
    assert not hasattr(model, "score")


@pytest.mark.filterwarnings("ignore:log Z rests:skebm.exceptions.PartitionWarning")
def test_an_energy_without_a_finite_integral_is_refused():
    model = DeepEBM(MLP((8,)), base=None, max_iter=1, random_state=0)
    with pytest.raises(NotNormalizableError):
        model.fit(gaussian_rows(60))


def test_history_has_a_number_per_epoch(normal):
    assert normal.n_iter_ == 2
    assert {"loss", "learning_rate"} <= set(normal.history_)
    for values in normal.history_.values():
        assert values.shape == (2,)
        assert np.isfinite(values).all()


def test_row_19_a_diverging_learning_rate_is_found():
    model = DeepEBM(
        MLP((8,)), learning_rate=1e8, max_iter=5, normalizer=FEW, random_state=0
    )
    with pytest.raises(DivergenceError, match=r"epoch.*learning"):
        model.fit(gaussian_rows(100))


@pytest.mark.parametrize("n", [60, 2500])
def test_row_25_ctrl_c_keeps_the_last_whole_epoch(monkeypatch, n):
    calls, call = [], NoiseContrastive.__call__

    def interrupted(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 50:
            raise KeyboardInterrupt
        return call(self, *args, **kwargs)

    monkeypatch.setattr(NoiseContrastive, "__call__", interrupted)
    model = DeepEBM(base="gaussian", max_iter=3, normalizer=FEW, random_state=0)
    x = gaussian_rows(n)
    with pytest.warns(InterruptedFitWarning, match="epoch 1") as caught:
        model.fit(x)
    assert caught[0].filename == __file__
    assert model.n_iter_ == 1
    assert np.isfinite(model.score_samples(x)).all()
    assert set(model.predict(np.vstack([x[:5], [[1e6, 0, 0]]]))) == {-1, 1}


def test_row_25_ctrl_c_before_training_leaves_a_gaussian(monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("skebm.estimators.recipes.base_of", interrupted)
    with pytest.warns(InterruptedFitWarning, match="epoch 0"):
        model = DeepEBM(random_state=0).fit(gaussian_rows(60))
    assert isinstance(model.energy_, Gaussians)
    assert np.isfinite(model.score(gaussian_rows(60)))


def test_row_26_a_fit_goes_on_from_its_checkpoints(monkeypatch, tmp_path):
    """A second fit starts from the files of a killed one and ends at the same bits."""
    params = {"base": "gaussian", "max_iter": 2, "normalizer": FEW, "random_state": 0}
    x = gaussian_rows(60)
    expected = DeepEBM(**params).fit(x)
    calls, call = [], NoiseContrastive.__call__

    def killed(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == 200:
            raise MemoryError
        return call(self, *args, **kwargs)

    model = DeepEBM(**params, checkpoint=tmp_path / "fit")
    with monkeypatch.context() as patch:
        patch.setattr(NoiseContrastive, "__call__", killed)
        with pytest.raises(MemoryError):
            model.fit(x)
    assert list(tmp_path.iterdir())
    calls.clear()
    monkeypatch.setattr(
        NoiseContrastive, "__call__", lambda *a, **k: calls.append(0) or call(*a, **k)
    )
    np.testing.assert_array_equal(model.fit(x).energy(x), expected.energy(x))
    assert 0 < len(calls) < 8 * 2 * 32


def test_grid_search_picks_by_the_normalised_score():
    model = DeepEBM(
        MLP((16,)),
        objective=DenoisingScoreMatching(),
        sampler=MALA(step_size=0.1),
        base=GaussianMixture(8, random_state=0),
        max_iter=1,
        normalizer=FEW,
        random_state=0,
    )
    grid = {
        "energy__hidden": [(4,), (16,)],
        "objective__sigma": [0.1, 3.0],
        "sampler__step_size": [0.1],
    }
    x = eight_gaussians(400)
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(x)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert search.best_score_ == scores.max()
    assert search.best_params_ in search.cv_results_["params"]
    best = clone(model).set_params(**search.best_params_).fit(x)
    np.testing.assert_array_equal(best.energy(x), search.best_estimator_.energy(x))


def test_halving_search_spends_epochs():
    model = DeepEBM(MLP((8,)), base="gaussian", normalizer=FEW, random_state=0)
    search = HalvingGridSearchCV(
        model,
        {"learning_rate": [1e-4, 1e-2, 3e-2]},
        resource="max_iter",
        max_resources=4,
        min_resources=1,
        factor=2,
        cv=2,
        error_score="raise",
        random_state=0,
    ).fit(eight_gaussians(200))
    assert search.n_resources_ == [1, 2]
    assert search.best_estimator_.n_iter_ <= 4


def test_quadrature_agrees_with_importance_sampling():
    x = eight_gaussians(300)
    model = DeepEBM(base="gaussian", max_iter=2, random_state=0).fit(x)
    exact = clone(model).set_params(normalizer=Quadrature()).fit(x)
    assert model.log_partition_ == pytest.approx(exact.log_partition_, abs=0.01)
    np.testing.assert_array_equal(model.energy(x), exact.energy(x))


def test_few_rows_get_a_gaussian():
    x = gaussian_rows(12)
    model = DeepEBM(random_state=0).fit(x)
    assert isinstance(model.energy_, Gaussians)
    assert model.n_iter_ == 0
    assert model.log_partition_ess_ == math.inf


def test_pickle_holds_no_training_rows(normal):
    state = pickle.dumps(normal)
    row = gaussian_rows(600)[17]
    assert row.tobytes() not in state
    assert row.astype(np.float32).tobytes() not in state


def mmd_p_value(x, y, rng, n_permutations=200):
    """Permutation p-value of the squared MMD, Gaussian kernel, median bandwidth."""
    both = torch.from_numpy(np.vstack([x, y]))
    squared = torch.cdist(both, both).square()
    kernel = (-squared / squared.median()).exp()

    def mmd(order):
        k, n = kernel[order][:, order], len(x)
        return float(k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean())

    observed = mmd(torch.arange(len(both)))
    shuffled = [
        mmd(torch.from_numpy(rng.permutation(len(both)))) for _ in range(n_permutations)
    ]
    return (1 + sum(value >= observed for value in shuffled)) / (1 + n_permutations)


@pytest.mark.slow
@pytest.mark.parametrize("make", [eight_gaussians, checkerboard, two_moons])
def test_defaults_come_within_004_nat_of_the_entropy(make):
    model = DeepEBM(random_state=0).fit(make(10_000))
    test = make(50_000, seed=1)
    assert model.score(test) > MINUS_ENTROPY[make] - 0.04 - 0.01
    drawn = model.sample(1000)
    assert mmd_p_value(drawn, test[:1000], np.random.default_rng(0)) > 0.05
    alarms = np.mean(model.predict(test) == -1)
    assert 0.03 < alarms < 0.07


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda seed: eight_gaussians(300, seed),
        lambda seed: two_moons(2500, seed),
        lambda seed: gaussian_rows(100, seed),
        lambda seed: load_iris().data,
        lambda seed: np.random.default_rng(seed).standard_cauchy((200, 2)),
        lambda seed: np.random.default_rng(seed).integers(0, 3, (80, 4)).astype(float),
    ],
    ids=["eight", "moons", "normal", "iris", "heavy tails", "integers"],
)
def test_a_hundred_seeds_stay_finite(make):
    """With defaults; warnings are errors here."""
    for seed in range(100):
        x = make(seed)
        model = DeepEBM(random_state=seed).fit(x)
        assert np.isfinite(model.score_samples(x)).all()
        assert np.isfinite(model.sample(10)).all()
        assert math.isfinite(model.log_partition_)


def test_own_hmc_is_tuned_once_and_reused():
    model = quadratic_model(sampler=HMC()).fit(gaussian_rows(300))
    assert model.sampler_.step_size is not None
    assert model.sampler == HMC() or repr(model.sampler) == repr(HMC())
    np.testing.assert_array_equal(model.sample(5), model.sample(5))


@pytest.mark.parametrize("objective", ["cd", "pcd", "ml"])
def test_the_base_is_chosen_on_other_rows_for_every_objective(objective):
    rng = np.random.default_rng(0)
    model = DeepEBM(objective=objective, max_iter=1, normalizer=None, random_state=0)
    assert len(model.fit(rng.normal(size=(300, 3))).base_.means) <= 4


@pytest.mark.parametrize(("objective", "n_held_out"), [("sm", 30), ("cd", 300)])
def test_rows_are_held_out_where_the_objective_judges(objective, n_held_out):
    """All 300 rows train, and calibrate, where no loss of held-out ones tells."""
    model = DeepEBM("quadratic", objective=objective, max_iter=1, normalizer=None)
    assert len(model.fit(gaussian_rows(300)).calibration_energy_) == n_held_out


def test_rows_outside_a_constraint_are_counted():
    U = np.random.default_rng(0).uniform(-1, 1, (300, 2))
    region = Constrained(MLP(), Box(-1.2, 1.2))
    with pytest.raises(ValueError, match=r"rows outside the region.*scaled units"):
        DeepEBM(region, max_iter=1).fit(U)


def test_quadrature_of_three_columns_is_refused_before_training(monkeypatch):
    monkeypatch.delattr("skebm.estimators.deep.train")
    with pytest.raises(ValueError, match="Got 3 columns, but Quadrature"):
        DeepEBM(normalizer="quadrature").fit(gaussian_rows(60))


def test_out_of_fold_log_densities_of_a_kept_tilt_are_normalised(monkeypatch):
    """One column, so a grid integrates exp(log p): to 1 but for 20,000 draws of b.

    The calibration energies of the model are those log-densities, fold by fold.
    """
    grid = torch.linspace(-12, 12, 24_001)[:, None]
    read, totals, tilted = Runs.log_density, [], []

    def log_density(runs, energy, x):
        found = read(runs, energy, x)
        totals.append(np.exp(read(runs, energy, grid)).sum() * 1e-3)
        if isinstance(energy, Tilted):
            tilted.extend(found)
        return found

    monkeypatch.setattr(Runs, "log_density", log_density)
    X = np.random.default_rng(0).uniform(-1, 1, (300, 1))
    model = DeepEBM(base="gaussian", max_iter=3, random_state=0).fit(X)
    assert isinstance(model.energy_, Tilted)
    np.testing.assert_allclose(totals, 1.0, atol=0.03)
    scaled_log_z = model.log_partition_ - math.log(model.scale_[0])
    expected = np.sort(-np.array(tilted)) - scaled_log_z
    np.testing.assert_allclose(model.calibration_energy_, expected, atol=1e-6)


@pytest.mark.slow
def test_false_alarms_of_a_kept_tilt_are_those_promised():
    """Twelve fits to 300 uniform rows, 2,000 new ones each: P(p <= .05) near .05.

    The share of a fit has sd sqrt(.05 * .95 / 300) = .0126, the mean of twelve .0036:
    the bounds are four of them away.
    """
    shares = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        X, new = rng.uniform(-1, 1, (300, 2)), rng.uniform(-1, 1, (2000, 2))
        model = DeepEBM(base="gaussian", max_iter=5, random_state=seed).fit(X)
        assert isinstance(model.energy_, Tilted)
        shares.append((model.p_values(new) <= 0.05).mean())
    assert 0.03 <= np.mean(shares) <= 0.065
