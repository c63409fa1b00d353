"""GaussianRBM against the mixture of Gaussians that it is, in the units of X."""

import itertools

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp
from scipy.stats import norm

from skebm import GaussianRBM
from skebm.energies import RBM, GaussianUnits
from skebm.exceptions import DivergenceError
from skebm.objectives import ExactLikelihood, RBMLikelihood
from skebm.partition import AnnealedGibbs, LayerSum
from skebm.samplers import draw_missing

UNITS = np.array([1.0, 1000.0, 0.01])


def quick(**settings):
    """Return an estimator that is trained a little."""
    usual = {"n_components": 3, "n_iter": 40, "random_state": 0}
    return GaussianRBM(**usual | settings)


def table(rng, n=200):
    """Return two clusters in three columns of unlike units."""
    side = rng.integers(0, 2, n)
    means = np.array([[-1.0, 1.0, 0.0], [1.0, -1.0, 2.0]])[side]
    return (means + 0.5 * rng.normal(size=(n, 3))) * UNITS + [5.0, -3e4, 7.0]


def mixture(rbm):
    """Return log weights, means and sds of the mixture, from the fitted attributes."""
    h = np.array(list(itertools.product([0, 1], repeat=rbm.n_components)))
    fields = rbm.intercept_visible_ + h @ rbm.components_
    variance = (rbm.residual_scale_ / rbm.scale_) ** 2
    psi = 0.5 * (fields**2 / variance + np.log(2 * np.pi * variance)).sum(1)
    log_p = h @ rbm.intercept_hidden_ + psi
    means = fields * rbm.scale_ + rbm.location_
    return h, log_p - logsumexp(log_p), means, rbm.residual_scale_


def joint(rbm, X):
    """Return log p(h) + log p(x | h), shape (n, 2 ** n_components)."""
    _, log_p, means, sd = mixture(rbm)
    known = ~np.isnan(X)
    log_density = norm.logpdf(np.nan_to_num(X)[:, None], means, sd)
    return log_p + (log_density * known[:, None]).sum(2)


@pytest.fixture(scope="module")
def fitted():
    X = table(np.random.default_rng(0))
    return quick().fit(X), X


def test_density_is_the_mixture_in_the_units_of_x(fitted):
    """p(v | h), p(h) and log Z at once."""
    rbm, X = fitted
    expected = logsumexp(joint(rbm, X), axis=1)
    np.testing.assert_allclose(rbm.score_samples(X), expected, rtol=0, atol=2e-6)
    assert rbm.log_partition_interval_ == (rbm.log_partition_,) * 2
    assert np.isinf(rbm.log_partition_ess_)


def test_hidden_probabilities_are_the_posterior_of_the_mixture(fitted):
    rbm, X = fitted
    h, *_ = mixture(rbm)
    log_p = joint(rbm, X)
    posterior = np.exp(log_p - logsumexp(log_p, axis=1, keepdims=True))
    np.testing.assert_allclose(rbm.transform(X), posterior @ h, rtol=0, atol=1e-6)


def test_missing_entries_are_summed_out(fitted):
    rbm, X = fitted
    X = X[:50].copy()
    X[:30, 0] = X[20:, 2] = np.nan
    expected = logsumexp(joint(rbm, X), axis=1)
    np.testing.assert_allclose(rbm.score_samples(X), expected, rtol=0, atol=5e-6)


def test_imputed_entries_are_the_conditional_means_of_the_mixture(fitted):
    rbm, X = fitted
    holes = X[:50].copy()
    holes[:, 1] = np.nan
    _, _, means, _ = mixture(rbm)
    log_p = joint(rbm, holes)
    posterior = np.exp(log_p - logsumexp(log_p, axis=1, keepdims=True))
    full = rbm.impute(holes)
    np.testing.assert_allclose(full[:, 1], posterior @ means[:, 1], rtol=1e-5)
    np.testing.assert_allclose(full[:, [0, 2]], X[:50, [0, 2]], rtol=1e-12)


@pytest.mark.parametrize("n_features", [1, 2])
def test_density_integrates_to_one(rng, n_features):
    X = table(rng)[:, :n_features]
    rbm = quick(n_iter=20).fit(X)
    low, high = X.min(0), X.max(0)
    grids = [
        np.linspace(a - 2 * (b - a), b + 2 * (b - a), 400)
        for a, b in zip(low, high, strict=True)
    ]
    rows = np.stack(np.meshgrid(*grids, indexing="ij"), -1).reshape(-1, n_features)
    cell = np.prod([g[1] - g[0] for g in grids])
    total = np.exp(rbm.score_samples(rows)).sum() * cell
    assert total == pytest.approx(1, abs=1e-4)


def test_scores_follow_the_units(rng):
    """Of 1000 X the density is 1000^-3 times that of X, and nothing else changes."""
    X = table(rng)
    plain, large = quick(n_iter=5).fit(X), quick(n_iter=5).fit(1000 * X)
    shift = 3 * np.log(1000)
    np.testing.assert_allclose(
        large.score_samples(1000 * X), plain.score_samples(X) - shift, atol=1e-4
    )
    assert large.log_partition_ - plain.log_partition_ == pytest.approx(shift, abs=1e-4)
    np.testing.assert_allclose(large.location_, 1000 * plain.location_)
    np.testing.assert_allclose(
        large.sample(5, random_state=1),
        1000 * plain.sample(5, random_state=1),
        rtol=1e-4,
    )


def test_statistics_leave_missing_entries_out(rng):
    X = table(rng)
    X[:150, 1] = np.nan
    rbm = quick(n_iter=1).fit(X)
    np.testing.assert_allclose(rbm.location_, np.nanmean(X, 0))
    np.testing.assert_allclose(rbm.scale_, np.nanstd(X, 0))


def test_column_that_hardly_varies_keeps_a_variance(rng):
    X = table(rng)
    X[:, 1] = X[:, 0] * 3 + 1e-9 * rng.normal(size=len(X))
    X[:, 2] = 4.0
    rbm = quick(n_iter=100).fit(X)
    floor = np.sqrt(1e-3) * rbm.scale_
    assert np.all(rbm.residual_scale_ >= floor * (1 - 1e-6))
    assert rbm.residual_scale_[2] == pytest.approx(floor[2], rel=1e-3)
    assert np.isfinite(rbm.score_samples(X)).all()


def test_two_gaussians_on_a_line(rng):
    """0.3 N(-2, 0.5^2) + 0.7 N(1, 0.5^2) is one hidden bit."""

    def draw(n):
        side = rng.random(n) < 0.3
        return np.where(side, -2.0, 1.0)[:, None] + 0.5 * rng.normal(size=(n, 1))

    rbm = quick(n_components=1, batch_size=500, n_iter=100).fit(draw(5000))
    X = draw(5000)
    truth = logsumexp(norm.logpdf(X, [-2.0, 1.0], 0.5), b=np.array([0.3, 0.7]), axis=1)
    assert np.mean(truth) - rbm.score(X) == pytest.approx(0, abs=0.01)
    assert rbm.residual_scale_[0] == pytest.approx(0.5, rel=0.04)
    _, log_p, means, _ = mixture(rbm)
    order = np.argsort(means[:, 0])
    np.testing.assert_allclose(means[order, 0], [-2.0, 1.0], atol=0.04)
    np.testing.assert_allclose(np.exp(log_p)[order], [0.3, 0.7], atol=0.03)


def planted(n_features, n_hidden, n, seed=0):
    """Return rows of a random machine and their log-densities."""
    g = torch.Generator().manual_seed(seed)
    rbm = RBM(n_hidden, GaussianUnits()).build(n_features).double()
    with torch.no_grad():
        for weight in rbm.parameters():
            weight.normal_(generator=g)
        nothing = torch.full((n, n_features), torch.nan, dtype=torch.float64)
        x = draw_missing(rbm, nothing, generator=g)
        log_density = -rbm(x) - LayerSum()(rbm).value
    return x.numpy(), log_density.numpy()


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 500, "n_iter": 60},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"objective": "pcd", "n_iter": 50}, marks=pytest.mark.slow),
    ],
)
def test_planted_machine_is_recovered(settings):
    X, truth = planted(4, 3, 20_000)
    rbm = GaussianRBM(random_state=0, **settings).fit(X[:10_000])
    assert truth[10_000:].mean() - rbm.score(X[10_000:]) <= 0.05


@pytest.mark.slow
def test_gaussian_rows_meet_the_conditional_law(rng):
    """Row 75: correlation 0.5, near enough a mixture of shifted Gaussians."""
    z = rng.normal(size=(20_000, 2))
    X = np.c_[z[:, 0], 0.5 * z[:, 0] + np.sqrt(0.75) * z[:, 1]] * [1.0, 50.0]
    rbm = GaussianRBM(
        6, batch_size=1000, learning_rate=0.2, n_iter=150, random_state=0
    ).fit(X)
    rows = rng.normal(size=(4000, 1)).clip(-2, 2) * [1.0, np.nan]
    found = rbm.impute(rows)[:, 1]
    expected = 25.0 * rows[:, 0]
    slope = found @ expected / (expected @ expected)
    assert slope == pytest.approx(1, abs=0.02)
    draws = rbm.sample(40_000, given={0: 0.0})[:, 1]
    assert draws.mean() == pytest.approx(0, abs=1.0)
    assert draws.var() == pytest.approx(0.75 * 2500, rel=0.02)


def test_draws_have_the_moments_of_the_mixture(fitted):
    rbm, _ = fitted
    _, log_p, means, sd = mixture(rbm)
    p = np.exp(log_p)
    mean, draws = p @ means, rbm.sample(20_000)
    variance = p @ (means - mean) ** 2 + sd**2
    np.testing.assert_allclose(
        (draws.mean(0) - mean) / np.sqrt(variance), np.zeros(3), atol=0.03
    )
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.03)


def test_reconstruction_is_the_mean_given_the_hidden_means(fitted):
    rbm, X = fitted
    fields = rbm.intercept_visible_ + rbm.transform(X) @ rbm.components_
    expected = fields * rbm.scale_ + rbm.location_
    np.testing.assert_allclose(rbm.reconstruct(X), expected, rtol=1e-5)
    assert rbm.gibbs(X).shape == X.shape


def test_transform_is_the_sigmoid_of_the_fields(fitted):
    rbm, X = fitted
    z = (X - rbm.location_) / rbm.scale_
    phi = z / (rbm.residual_scale_ / rbm.scale_) ** 2
    expected = expit(rbm.intercept_hidden_ + phi @ rbm.components_.T)
    np.testing.assert_allclose(rbm.transform(X), expected, rtol=0, atol=1e-5)


def test_annealing_agrees_with_the_sum(rng):
    """Beyond 22 hidden bits log Z is annealed: here with the sum to compare."""
    X = table(rng)
    exact = quick(n_iter=20).fit(X)
    annealed = quick(n_iter=20, normalizer=AnnealedGibbs(256, n_temperatures=300))
    assert annealed.fit(X).log_partition_ == pytest.approx(
        exact.log_partition_, abs=0.05
    )


@pytest.mark.parametrize("objective", ["cd", "tempered", RBMLikelihood(n_steps=2)])
def test_chains_train_too(rng, objective):
    X = table(rng)
    rbm = quick(objective=objective, n_iter=100, learning_rate=0.05).fit(X)
    independent = norm.logpdf(X, X.mean(0), X.std(0)).sum(1).mean()
    assert rbm.score(X) > independent + 0.5


def test_auto_is_exact_up_to_ten_bits(rng):
    X = table(rng)
    auto, exact = quick(n_iter=3), quick(n_iter=3, objective=ExactLikelihood())
    np.testing.assert_array_equal(
        auto.fit(X).score_samples(X), exact.fit(X).score_samples(X)
    )
    wide = {"n_components": 11, "n_iter": 3}
    chains = quick(**wide, objective="pcd").fit(X)
    np.testing.assert_array_equal(
        quick(**wide).fit(X).score_samples(X), chains.score_samples(X)
    )
    with pytest.raises(ValueError, match="at most 16"):
        quick(n_components=17, objective="exact").fit(X)


def test_partial_fit_learns_from_a_stream(rng):
    X = table(rng, 2000)
    rbm = quick()
    for batch in np.split(X[:1900], 19):
        for _ in range(10):
            assert rbm.partial_fit(batch) is rbm
    independent = norm.logpdf(X, X.mean(0), X.std(0)).sum(1)[1900:].mean()
    assert rbm.score(X[1900:]) > independent + 0.3


def test_divergence_is_an_error(rng):
    with pytest.raises(DivergenceError, match="learning_rate"):
        quick(learning_rate=1e20).fit(table(rng))


def test_early_stopping_keeps_the_best_look(rng):
    X = table(rng)
    rbm = quick(early_stopping=True, n_iter=60, validation_fraction=0.25).fit(X)
    assert len(rbm.calibration_energy_) == 50
    assert np.isfinite(rbm.history_["valid_loss"]).any()


def test_dataframes_come_back_as_dataframes(rng):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(table(rng), columns=["a", "b", "c"])
    frame.loc[::4, "b"] = np.nan
    rbm = quick(n_iter=5).fit(frame)
    assert list(rbm.impute(frame).columns) == ["a", "b", "c"]
    assert not rbm.impute(frame).isna().any().any()
    drawn = rbm.sample(3, given={"a": 5.0})
    assert list(drawn["a"].round(6)) == [5.0] * 3
    assert rbm.sample(3).shape == (3, 3)
