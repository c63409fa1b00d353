"""EBMRegressor: known laws, calibrated intervals, weights, and the tools around it."""

import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm import EBMRegressor
from skebm.exceptions import DivergenceError, InterruptedFitWarning
from skebm.training.learner import Learner


def tiny(**params):
    settings = {"hidden": 16, "max_iter": 15, "n_members": 3, "random_state": 0}
    return EBMRegressor(**settings | params)


def linear(n, seed=0):
    """Return rows and a linear target with Gaussian noise of size 0.5."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    return X, 3 + X @ [1.0, -2.0] + 0.5 * rng.normal(size=n)


def branches(n, seed=0):
    """Return rows and a target that is near 1 or near -1, by a share that x sets."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, n)
    sign = np.where(rng.random(n) < 1 / (1 + np.exp(-x)), 1, -1)
    return x[:, None], sign * (1 + 0.5 * np.sin(x)) + 0.2 * rng.normal(size=n)


def log_density_of_branches(X, y):
    x = X[:, 0]
    up, middle = 1 / (1 + np.exp(-x)), 1 + 0.5 * np.sin(x)
    return np.logaddexp(
        np.log(up) + stats.norm.logpdf(y, middle, 0.2),
        np.log1p(-up) + stats.norm.logpdf(y, -middle, 0.2),
    )


@pytest.fixture(scope="module")
def two_branches():
    return EBMRegressor(max_iter=30, random_state=0).fit(*branches(4000))


def test_linear_gaussian_conditional():
    """Known in closed form: N(3 + x1 - 2 x2, 0.25)."""
    model, (X, _) = tiny().fit(*linear(2000)), linear(200, seed=1)
    law = stats.norm(3 + X @ [1.0, -2.0], 0.5)
    np.testing.assert_allclose(model.predict(X), law.mean(), atol=0.12)
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    expected = np.stack([law.ppf(p) for p in levels], 1)
    assert np.abs(model.predict_quantiles(X, levels) - expected).mean() < 0.05
    y = law.rvs(random_state=0)
    assert np.mean(law.logpdf(y) - model.log_density(X, y)) < 0.02


def test_several_targets_conditional_gaussian():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2500, 2))
    B, root = np.array([[1.0, 0.0], [2.0, -1.0]]), np.array([[1.0, 0.0], [0.8, 0.6]])
    Y = X @ B + rng.normal(size=(2500, 2)) @ root.T
    model = tiny(tilt=True).fit(X[:2000], Y[:2000])
    mean, X = (X @ B)[2000:], X[2000:]
    truth = [
        stats.multivariate_normal(m, root @ root.T).logpdf(y)
        for m, y in zip(mean, Y[2000:], strict=True)
    ]
    assert -0.02 < np.mean(truth - model.log_density(X, Y[2000:])) < 0.05
    np.testing.assert_allclose(model.predict(X), mean, atol=0.4)
    low, high = np.moveaxis(model.predict_interval(X, 0.9), 2, 0)
    covered = (low <= Y[2000:]) & (Y[2000:] <= high)
    np.testing.assert_allclose(covered.mean(0), 0.9, atol=0.04)
    assert np.abs(high - low - 2 * 1.645).mean() < 0.3
    draws = model.sample(X[:2], 3000) - mean[:2, None]
    assert draws.shape == (2, 3000, 2)
    for row in draws:
        np.testing.assert_allclose(np.cov(row.T), root @ root.T, atol=0.2)
    with pytest.raises(ValueError, match="needs one target; got 2"):
        model.set_params(prediction="mode").predict(X)


def test_two_branches(two_branches):
    X, y = branches(4000, seed=1)
    assert two_branches.tilted_
    excess = log_density_of_branches(X, y) - two_branches.log_density(X, y)
    assert 0 <= excess.mean() < 0.06


def test_mean_median_and_mode_of_two_branches(two_branches):
    """At x = 1.5: 1.5 with probability 0.818, else -1.5; the branches are far apart."""
    model, x, up = pickle.loads(pickle.dumps(two_branches)), [[1.5]], 0.8176
    middle = 1 + 0.5 * np.sin(1.5)
    expected = {
        "mean": (2 * up - 1) * middle,
        "median": middle + 0.2 * stats.norm.ppf((0.5 - (1 - up)) / up),
        "mode": middle,
    }
    for name, value in expected.items():
        found = model.set_params(prediction=name).predict(x)
        assert found == pytest.approx(value, abs=0.12)


def test_quantiles_invert_the_distribution_and_draws_follow_it(two_branches):
    X, _ = branches(3, seed=2)
    draws = two_branches.sample(X, 4000, random_state=1)
    levels = np.linspace(0.02, 0.98, 49)
    quantiles = two_branches.predict_quantiles(X, levels)
    for row, values in zip(draws, quantiles, strict=True):
        share = (row[:, None] <= values).mean(0)
        assert np.abs(share - levels).max() < 1.63 / np.sqrt(4000)
    assert np.array_equal(draws, two_branches.sample(X, 4000, random_state=1))


def test_energy_is_minus_the_log_density_and_units_count(two_branches):
    X, y = branches(50, seed=3)
    found = two_branches.log_density(X, y)
    np.testing.assert_array_equal(two_branches.energy(X, y), -found)
    X, y = linear(200)
    one, ten = tiny(max_iter=2).fit(X, y), tiny(max_iter=2).fit(X, 10 * y)
    shift = one.log_density(X, y) - ten.log_density(X, 10 * y)
    np.testing.assert_allclose(shift, np.log(10), atol=1e-6)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_intervals_cover(coverage):
    found = []
    for seed in range(6):
        X, y = make_friedman1(500, noise=1.0, random_state=seed)
        X, X_test, y, y_test = train_test_split(X, y, random_state=seed)
        low, high = (
            tiny(random_state=seed).fit(X, y).predict_interval(X_test, coverage).T
        )
        found.append(np.mean((low <= y_test) & (y_test <= high)))
    assert np.mean(found) == pytest.approx(coverage, abs=0.035)


def test_calibration_mends_a_model_that_is_too_sure():
    """Levels of held-out rows that pile up at both ends widen the interval."""
    X, y = linear(400)
    model = tiny().fit(X, y)
    narrow = np.diff(model.predict_interval(X[:5]))
    model.levels_ = stats.beta(0.4, 0.4).ppf(np.linspace(0.001, 0.999, 400))[None]
    assert np.all(np.diff(model.predict_interval(X[:5])) > 1.2 * narrow)
    plain = model.set_params(calibration=None).predict_interval(X[:5], 0.8)
    expected = model.predict_quantiles(X[:5], [0.1, 0.9])
    np.testing.assert_allclose(plain, expected, rtol=1e-12)


def test_calibration_moves_a_model_that_is_too_low():
    """Levels with distribution u^2: the ends are the roots' quantiles."""
    X, y = linear(400)
    model = tiny().fit(X, y)
    n = model.levels_.shape[1]
    model.levels_ = np.sqrt(np.arange(1, n + 1) / (n + 1))[None]
    model.level_shares_ = np.arange(1, n + 1)[None] / (n + 1)
    expected = model.predict_quantiles(X[:5], np.sqrt([0.05, 0.95]))
    np.testing.assert_allclose(model.predict_interval(X[:5]), expected, atol=0.05)


def test_held_out_levels_are_uniform():
    model = tiny().fit(*linear(1000))
    assert stats.kstest(model.levels_[0], "uniform").pvalue > 0.01
    assert model.held_out_log_density_ == pytest.approx(
        -0.5 * np.log(2 * np.pi * np.e * 0.25), abs=0.08
    )


def test_weights_are_repetitions_and_zero_is_no_row():
    X, y = linear(60)
    weight = np.random.default_rng(0).integers(0, 4, 60)
    weighted = tiny(max_iter=2).fit(X, y, weight)
    order = np.random.default_rng(1).permutation(weight.sum())
    repeated = tiny(max_iter=2).fit(
        np.repeat(X, weight, axis=0)[order], np.repeat(y, weight)[order]
    )
    for reader in ("predict", "predict_interval", "predict_quantiles"):
        np.testing.assert_array_equal(
            getattr(weighted, reader)(X), getattr(repeated, reader)(X)
        )
    flat = tiny(max_iter=2).fit(X, y)
    assert np.any(flat.predict(X) != weighted.predict(X))


def test_the_tilt_is_left_out_where_it_does_not_pay():
    X, y = linear(300)
    assert not tiny().fit(X, y).tilted_
    assert tiny(tilt=True, max_iter=2).fit(X, y).tilted_
    assert not tiny(tilt=False, max_iter=2).fit(X, y).tilted_


def test_the_start_is_a_constant_where_the_targets_have_ends():
    """p(y | x) is exp(3 x y) on [0, 1], cut off there whatever x."""
    rng = np.random.default_rng(0)
    x, u = rng.uniform(-1, 1, 500), rng.uniform(size=500)
    y = np.log1p(u * np.expm1(3 * x)) / (3 * x)
    model = tiny(tilt=True).fit(x[:, None], y)
    assert not model.linear_
    assert tiny(tilt=True).fit(*linear(300)).linear_


@pytest.mark.slow
def test_diabetes_is_likelier_than_under_ridge():
    X, y = load_diabetes(return_X_y=True)
    gain, r2 = [], []
    for seed in range(8):
        X1, X2, y1, y2 = train_test_split(X, y, test_size=0.25, random_state=seed)
        ridge = RidgeCV(np.logspace(-4, 2, 13)).fit(X1, y1)
        sigma = np.sqrt(np.sum((y1 - ridge.predict(X1)) ** 2) / (len(y1) - 11))
        model = EBMRegressor(random_state=seed).fit(X1, y1)
        gaussian = stats.norm.logpdf(y2, ridge.predict(X2), sigma).mean()
        gain.append(model.log_density(X2, y2).mean() - gaussian)
        r2.append(model.score(X2, y2) - ridge.score(X2, y2))
    assert np.mean(gain) > 0
    assert np.mean(r2) > -0.02


def test_pipelines_and_searches():
    X, y = linear(120)
    by_density = lambda model, X, y: model.log_density(X, y).mean()  # noqa: E731
    for scoring in (None, by_density):
        search = GridSearchCV(
            tiny(max_iter=2), {"n_tilts": [2, 4]}, scoring=scoring, cv=2
        )
        assert np.isfinite(search.fit(X, y).best_score_)
    pipeline = make_pipeline(StandardScaler(), tiny(max_iter=2)).fit(X, y)
    assert pipeline.score(X, y) > 0.9


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_faults_6_and_8_scales_do_not_matter(scale):
    X, y = linear(80)
    expected = tiny(max_iter=2).fit(X, y).predict_interval(X)
    other = tiny(max_iter=2).fit(scale * X, y)
    np.testing.assert_allclose(other.predict_interval(scale * X), expected, rtol=1e-4)
    other = tiny(max_iter=2).fit(X, scale * y)
    np.testing.assert_allclose(other.predict_interval(X) / scale, expected, rtol=1e-4)


def test_faults_3_5_7_and_10_strange_tables():
    X, y = linear(80)
    flat = np.c_[X, np.full(80, 7.0)]
    model = tiny(max_iter=2).fit(flat, y)
    far = np.array([[1e30, 0.0, 7.0], [-1e300, 1e300, 0.0]])
    for reader in ("predict", "predict_interval", "predict_quantiles", "sample"):
        assert np.isfinite(getattr(model, reader)(far)).all()
    assert np.isfinite(model.log_density(flat[:3], [1e30, -1e300, 0.0])).all()
    tiny(max_iter=2).fit(X[:, :1], y)
    same = tiny(max_iter=2).fit(np.ones((9, 2)), np.ones(9))
    np.testing.assert_allclose(same.predict([[1.0, 1.0]]), 1.0, atol=0.1)
    constant = tiny(max_iter=2).fit(X, np.full(80, 5.0))
    np.testing.assert_allclose(constant.predict(X), 5.0, atol=0.1)
    few = tiny(max_iter=2).fit(X[:2], y[:2])
    assert np.isfinite(few.predict_interval(X)).all()


def test_a_diverging_learning_rate_is_told():
    X, y = linear(80)
    with pytest.raises(DivergenceError, match="learning_rate"):
        tiny(learning_rate=1e30).fit(X, y)


@pytest.mark.parametrize("at_step", [1, 40])
def test_ctrl_c_keeps_the_last_whole_epoch(monkeypatch, at_step):
    step, steps = Learner._step, []

    def interrupted(self, *args):
        steps.append(args)
        if len(steps) == at_step:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Learner, "_step", interrupted)
    X, y = linear(80)
    with pytest.warns(InterruptedFitWarning, match="fit was interrupted"):
        model = tiny().fit(X, y)
    assert model.n_iter_ == (at_step - 1) // 8
    assert model.score(X, y) > 0.9
    assert np.isfinite(model.predict_interval(X)).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, X: m.predict_interval(X, 1.0), r"coverage must be in \(0, 1\)"),
        (lambda m, X: m.predict_quantiles(X, [0.0]), r"levels in \(0, 1\)"),
        (lambda m, X: m.predict_quantiles(X, 0.5), r"levels in \(0, 1\)"),
        (lambda m, X: m.sample(X, 0), "n_samples must be >= 1"),
        (lambda m, X: m.log_density(X, [1.0, 2.0]), "expected 40 rows"),
        (lambda m, X: m.log_density(X, [np.nan] * 40), "NaN"),
        (lambda m, X: m.fit(X, X[:, 0], np.zeros(40)), "non-zero"),
        (lambda m, X: m.fit(X, X[:, 0], -np.ones(40)), "sample_weight"),
        (lambda m, X: m.set_params(hidden=(0,)).fit(X, X[:, 0]), "hidden"),
    ],
)
def test_bad_arguments(call, message):
    X, y = linear(40)
    with pytest.raises(ValueError, match=message):
        call(tiny(max_iter=1).fit(X, y), X)


def test_shapes_follow_y():
    X, y = linear(40)
    one = tiny(max_iter=1).fit(X, y[:, None])
    assert one.predict(X).shape == (40, 1)
    assert one.predict_interval(X).shape == (40, 1, 2)
    assert one.sample(X, 3).shape == (40, 3, 1)
    assert one.log_density(X, y).shape == (40,)
    three = tiny(max_iter=1).fit(X, np.c_[y, -y, X[:, 0]])
    assert three.predict(X).shape == (40, 3)
    assert three.predict_quantiles(X, [0.2, 0.8, 0.9, 0.95, 0.99]).shape == (40, 3, 5)


def test_a_row_reads_the_same_in_any_batch():
    X, y = linear(150)
    model = tiny(max_iter=1).fit(X, y)
    order = np.random.default_rng(0).permutation(150)
    for reader in ("predict", "predict_interval", "predict_quantiles"):
        values = getattr(model, reader)(X)
        np.testing.assert_array_equal(getattr(model, reader)(X[order]), values[order])
        np.testing.assert_array_equal(getattr(model, reader)(X[7:8]), values[7:8])


def test_the_mode_of_several_targets_is_refused_before_training():
    X, y = linear(30)
    with pytest.raises(ValueError, match="the mode is that of one"):
        tiny(prediction="mode").fit(X, np.stack([y, y], 1))


@pytest.mark.parametrize("n", [20, 25, 30])
def test_conformal_shares_count_the_row_to_come(n):
    """k of n held-out levels hold a share k / (n + 1): the new row is one of n + 1."""
    model = tiny(max_iter=1).fit(*linear(n))
    expected = np.arange(1, n + 1) / (n + 1)
    np.testing.assert_allclose(model.level_shares_[0], expected, rtol=1e-12)


def test_tied_levels_take_the_share_of_the_last():
    model = tiny(max_iter=1).fit(*linear(20))
    model.levels_ = np.array([[0.2, 0.5, 0.5, 0.5, 0.8]])
    model.level_shares_ = np.arange(1, 6)[None] / 6
    p = torch.tensor([[[0.2], [0.5], [0.65], [0.8]]], dtype=torch.float64)
    found = model._calibrated(p).flatten().tolist()
    assert found == pytest.approx([1 / 6, 4 / 6, 4.5 / 6, 5 / 6])
