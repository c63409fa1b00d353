"""Coordinates against their formulas."""

import numpy as np
import pytest
import torch
from scipy.stats import norm, rankdata
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.datasets import load_digits
from torch.testing import assert_close

from skebm.energies.views import (
    LARGEST,
    Ranked,
    Standardized,
    Whitened,
    row_scale,
    shares_unit,
    shrinkage,
)


def randn(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def new(view, x):
    """The coordinates of rows that were not among the training rows."""
    if isinstance(view, Standardized):
        return view(x)
    return whole(view(x, torch.zeros(len(x), dtype=torch.bool)))


def whole(scores):
    """The sum of the two parts of `Ranked`; `Whitened` has one."""
    return scores[0] + scores[1] if isinstance(scores, tuple) else scores


def digits():
    return torch.from_numpy(load_digits().data)


def correlated(n, d):
    return randn(n, d) @ randn(d, d, seed=1)


def test_standardized_has_mean_zero_and_sd_one():
    x = 5 + 3 * randn(50, 4)
    view = Standardized().fit(x)
    assert not view.pooled
    assert_close(new(view, x).mean(0), torch.zeros(4).double(), rtol=0, atol=1e-12)
    assert_close(new(view, x).std(0, correction=0), torch.ones(4).double())
    other = randn(5, 4, seed=1)
    expected = (other - x.mean(0)) / x.std(0, correction=0)
    assert_close(new(view, other), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e17, 1e300, 5e-324])
def test_constant_columns_keep_their_unit(value):
    x = torch.cat([randn(50, 1), column(*[value] * 50)], 1)
    view = Standardized().fit(x)
    assert view.varies.tolist() == [True, False]
    assert (new(view, x)[:, 1] == 0).all()
    moved = x[:1].clone()
    moved[:, 1] += max(0.25, abs(value))
    expected = (moved - x[:1])[0, 1].clamp(-LARGEST, LARGEST)
    assert_close(new(view, moved)[0, 1], expected)


@pytest.mark.parametrize("unit", [1e300, 1e-300, 1e-100])
def test_extreme_units_cancel(unit):
    x = randn(50, 3)
    view = Standardized().fit(x * unit)
    assert not view.pooled
    expected = new(Standardized().fit(x), x)
    assert_close(new(view, x * unit), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("unit", [1e300, 1e-200])
def test_extreme_shared_units_cancel(unit):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 9, (200, 4), generator=g).double()
    view = Standardized().fit(x * unit)
    assert view.pooled
    expected = new(Standardized().fit(x), x)
    assert_close(new(view, x * unit), expected, rtol=1e-9, atol=1e-12)


def test_denormal_spread_counts_as_constant():
    x = torch.cat([randn(50, 1), 5e-324 * torch.arange(50.0).double()[:, None]], 1)
    view = Standardized().fit(x)
    assert view.varies.tolist() == [True, False]
    assert new(view, x).isfinite().all()


def test_rounding_noise_on_a_level_counts_as_constant():
    x = torch.cat([randn(50, 1), torch.full((50, 1), 1e8).double()], 1)
    x[0, 1] += 1e-8
    view = Standardized().fit(x)
    assert view.varies.tolist() == [True, False]
    x[::2, 1] += 1e-3
    assert Standardized().fit(x).varies.tolist() == [True, True]


def test_standardized_rows_are_clamped():
    view = Standardized().fit(randn(50, 2))
    far = torch.tensor([[1e300, -1e300]]).double()
    assert new(view, far).tolist() == [[LARGEST, -LARGEST]]


def test_pixels_share_a_unit():
    x = digits()
    shared = shares_unit(x)
    graded = (x.amin(0) == 0) & (x.amax(0) == 16)
    assert shared[graded].all()
    view = Standardized().fit(x)
    assert view.pooled
    used = shared & view.varies
    sd = x.std(0, correction=0)
    pooled = sd[used].square().mean().sqrt()
    assert_close(view.scale[used], pooled.expand(int(used.sum())))
    assert (view.scale[~view.varies] == 1).all()
    assert_close(new(view, x)[:, used], ((x - x.mean(0)) / pooled)[:, used])


def test_columns_outside_the_shared_bounds_keep_their_own_sd():
    g = torch.Generator().manual_seed(0)
    ratings = torch.randint(1, 6, (200, 4), generator=g).double()
    narrow = ratings[:, :1].clamp(2, 4)
    x = torch.cat([ratings, narrow, 10 * randn(200, 1)], 1)
    assert shares_unit(x).tolist() == [True] * 5 + [False]
    view = Standardized().fit(x)
    assert view.pooled
    assert_close(view.scale[5], x[:, 5].std(correction=0))
    assert (view.scale[:5] == view.scale[0]).all()


def test_tables_without_a_shared_unit():
    g = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 4, (200, 3), generator=g)
    one_hot = torch.nn.functional.one_hot(codes, 4).flatten(1).double()
    z = randn(200, 6)
    standard = (z - z.mean(0)) / z.std(0)
    minority = torch.cat([torch.randint(0, 9, (200, 2), generator=g), z], 1)
    single = torch.randint(0, 9, (200, 1), generator=g).double()
    mixed = torch.cat([one_hot, z], 1)
    pair = torch.cat([100 * z[:, :1], z[:, 1:2]], 1)
    for x in (one_hot, standard, mixed, minority, single, pair):
        assert not shares_unit(x).any()
        assert not Standardized().fit(x).pooled


@pytest.mark.parametrize("power", [-0.25, 0.25, 0.0, -0.5])
@pytest.mark.parametrize(("n", "d"), [(200, 6), (10, 30), (30, 30)])
def test_whitening_maps_the_eigenvalues(n, d, power):
    z = correlated(n, d)
    w = torch.linalg.eigvalsh(z.T.cov(correction=0)).clamp(min=0)
    out = new(Whitened(power).fit(z), z)
    after = torch.linalg.eigvalsh(out.T.cov(correction=0)).clamp(min=0)
    expected = (w * (w + 0.05 * w.mean()) ** (2 * power)).sort().values
    assert_close(after, expected, rtol=1e-8, atol=1e-9 * float(expected.max()))


@pytest.mark.parametrize("power", [-0.25, 0.25])
def test_wide_and_tall_tables_take_the_same_turn(power):
    z, other = correlated(12, 20), correlated(5, 20) + 1
    wide = new(Whitened(power).fit(z), other)
    tall = new(Whitened(power).fit(z.repeat(3, 1)), other)
    assert_close(wide, tall, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("n", "d"), [(200, 6), (10, 30)])
def test_whitening_equals_the_matrix_power(n, d):
    z, other = correlated(n, d), correlated(5, d) + 1
    covariance = z.T.cov(correction=0)
    w, v = torch.linalg.eigh(covariance)
    gain = (w.clamp(min=0) + 0.05 * covariance.trace() / d) ** -0.25
    assert_close(new(Whitened(-0.25).fit(z), other), other @ v @ gain.diag() @ v.T)


@pytest.mark.parametrize(("n", "d"), [(200, 6), (10, 30)])
def test_stored_rows_give_back_their_share_of_the_variance(n, d):
    z = correlated(n, d)
    seen = torch.arange(n) % 2 > 0
    covariance = z.T.cov(correction=0)
    w, v = torch.linalg.eigh(covariance)
    floor = 0.05 * covariance.trace() / d
    along = z @ v
    left = (w - along.square() / n).clamp(min=0)
    expected = along * (left + floor) ** -0.25
    view = Whitened(-0.25).fit(z)
    out = view(z, seen) @ v
    loud = seen[:, None] & (along.square() > w) & (w > 1e-9)
    assert loud.sum() > 0.5 * n
    assert_close(out[loud], expected[loud], rtol=1e-8, atol=1e-8)
    assert_close((out @ v.T)[~seen], new(view, z)[~seen])


def test_power_zero_keeps_the_rows():
    z = correlated(50, 4)
    assert_close(new(Whitened(0.0).fit(z), z), z)


def test_constant_rows_are_kept():
    z = torch.zeros(9, 3, dtype=torch.float64)
    out = new(Whitened(-0.25).fit(z), torch.cat([z, randn(2, 3)]))
    assert out.isfinite().all()
    assert (out[:9] == 0).all()


def test_ranked_is_the_normal_score_of_the_midrank():
    g = torch.Generator().manual_seed(0)
    x = torch.cat([randn(101, 2), torch.randint(0, 5, (101, 2), generator=g)], 1)
    scores = norm.ppf(rankdata(x.numpy(), axis=0) / 102)
    expected = scores / scores.std(0)
    out = new(Ranked().fit(x), x)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)
    assert_close(out.std(0, correction=0), torch.ones(4).double())


def test_a_stored_row_is_ranked_among_the_others():
    g = torch.Generator().manual_seed(0)
    x = torch.cat([randn(31, 2), torch.randint(0, 5, (31, 2), generator=g)], 1)
    view = Ranked().fit(x)
    out = whole(view(x, torch.arange(31) % 3 > 0))
    for i in range(31):
        rest = Ranked().fit(torch.cat([x[:i], x[i + 1 :]]) if i % 3 else x)
        rest.spread, rest.scale = view.spread, view.scale
        expected = new(rest, x[i : i + 1])[0]
        assert_close(out[i], expected, rtol=1e-9, atol=1e-12)


def test_ranked_between_the_training_values():
    view = Ranked().fit(column(0, 1, 2, 3))
    unit = norm.ppf(np.arange(1, 5) / 5).std()
    out = new(view, column(-0.0, 0.5, 2.5, 3.0))[:, 0]
    expected = norm.ppf([1 / 5, 1.5 / 5, 3.5 / 5, 4 / 5]) / unit
    np.testing.assert_allclose(out, expected, rtol=1e-12)


def test_ranked_goes_on_as_asinh_beyond_the_training_range():
    x = randn(101, 1)
    view = Ranked().fit(x)
    low, high = x.min(), x.max()
    ordered = np.sort(x.numpy()[:, 0])
    r = max((ordered[75] - ordered[25]) / 1.349, 0.1 * ordered.std())
    excess = torch.logspace(-6, 12, 60, dtype=torch.float64)[:, None]
    end = norm.ppf(101.5 / 102)
    above = (end + np.arcsinh(excess.numpy() / r)) / float(view.scale)
    np.testing.assert_allclose(new(view, high + excess), above, rtol=1e-6)
    np.testing.assert_allclose(new(view, low - excess), -above, rtol=1e-6)
    line = torch.linspace(-9, 9, 500, dtype=torch.float64)[:, None]
    assert (new(view, line).diff(dim=0) >= 0).all()
    assert (new(view, high + excess).diff(dim=0) > 0).all()
    assert new(view, high[None, None] + 1e-9) > new(view, high[None, None])


def test_ranked_scores_are_bounded_and_the_excess_starts_at_the_range():
    x = randn(101, 1)
    line = torch.linspace(-50, 50, 1001, dtype=torch.float64)[:, None]
    view = Ranked().fit(x)
    within, beyond = view(line, torch.zeros(1001, dtype=torch.bool))
    assert within.abs().max() * view.scale < norm.ppf(101.6 / 102)
    inside = (line >= x.min()) & (line <= x.max())
    assert ((beyond == 0) == inside).all()


def test_ranked_takes_a_tenth_of_the_sd_where_the_quartiles_meet():
    x = torch.zeros(100, 1, dtype=torch.float64)
    x[0], x[1] = -1.0, 3.0
    assert_close(Ranked().fit(x).spread[0], 0.1 * x.std(correction=0))


def test_ranked_constant_columns():
    view = Ranked().fit(torch.full((20, 1), 2.0).double())
    low, same, high = new(view, column(1.0, 2.0, 3.0))[:, 0].tolist()
    assert same == 0
    assert high == pytest.approx(-low)
    assert high == pytest.approx(np.arcsinh(1.0))


def test_ranked_ignores_monotone_transforms_inside_the_range():
    x = randn(60, 2)
    assert_close(new(Ranked().fit(x), x), new(Ranked().fit(x.exp()), x.exp()))


def test_row_scale_is_the_interquartile_range_then_the_sd_then_one():
    assert row_scale(torch.arange(101.0)) == 50
    spiked = torch.zeros(100).double()
    spiked[0] = 10.0
    assert_close(row_scale(spiked), spiked.std(correction=0))
    assert row_scale(torch.full((9,), 3.0)) == 1


@pytest.mark.parametrize(("n", "d"), [(300, 5), (30, 10), (12, 40)])
def test_shrinkage_is_that_of_ledoit_and_wolf(n, d):
    z = np.random.default_rng(0).standard_t(4, size=(n, d)) * np.linspace(1, 3, d)
    z -= z.mean(0)
    variance = torch.linalg.svdvals(torch.from_numpy(z)).square() / n
    share = shrinkage(torch.from_numpy(z), variance)
    assert share == pytest.approx(ledoit_wolf_shrinkage(z, assume_centered=True))


def test_whitening_shrinks_the_covariance():
    z = torch.from_numpy(
        np.random.default_rng(0).normal(size=(40, 6)) @ np.diag([1, 1, 1, 2, 3, 4.0])
    )
    share = ledoit_wolf_shrinkage(z.numpy())
    centered = z - z.mean(0)
    covariance = centered.T @ centered / 40
    mean = covariance.trace() / 6
    shrunk = (1 - share) * covariance + (share + 0.05) * mean * torch.eye(6)
    w, v = torch.linalg.eigh(shrunk)
    expected = z @ (v * w**-0.25) @ v.T
    turned = Whitened(-0.25, shrinks=True).fit(z)(z, torch.zeros(40, dtype=torch.bool))
    torch.testing.assert_close(turned, expected)
