"""Response energies against dense integration and Student laws."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch.testing import assert_close

from skebm.energies import ResponseEnergy
from skebm.energies.response_law import response_law
from skebm.energies.response_nodes import (
    drawn_nodes,
    heavy_nodes,
    panel_nodes,
    shifted_nodes,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def energy(n_targets=1, n_members=3, n_tilts=8, steep=3.0):
    """Return an energy with large random weights: bumps, and skewed tails."""
    found = ResponseEnergy(n_targets, n_members, hidden=(16,), n_tilts=n_tilts)
    found.build(2 + n_targets, generator=generator()).double()
    with torch.no_grad():
        found.network.weights[-1].mul_(100 * steep)
        found.log_freedom.copy_(
            torch.randn(n_members, n_targets, generator=generator())
        )
        found.coef.normal_(generator=generator(1))
        root = torch.eye(n_targets) + 0.5 * torch.ones(n_targets, n_targets).tril(-1)
        found.mixing.copy_(1.5 * root)
    return found.eval().requires_grad_(False)


X = torch.randn(3, 2, generator=generator(5), dtype=torch.float64)


def density_at(model, x):
    """Return y -> p(y | x) for one row of one target."""

    def density(y):
        row = torch.cat([x, torch.tensor([y], dtype=torch.float64)])
        return float((-model(row[None])).exp())

    return density


def integral(function, low=-math.inf, high=math.inf):
    """Return an adaptive integral in pieces, so that no bump is missed."""
    edges = [low, *[e for e in np.linspace(-12, 12, 97) if low < e < high], high]
    pieces = itertools.pairwise(edges)
    return sum(quad(function, a, b, epsabs=1e-11, limit=200)[0] for a, b in pieces)


@pytest.mark.parametrize("row", range(3))
def test_density_integrates_to_one(row):
    assert integral(density_at(energy(), X[row])) == pytest.approx(1, abs=1e-6)


def test_training_grid_has_a_small_error_of_mean_zero():
    model = energy(steep=1.0)
    heads = model.heads(X)
    exact = model.node_energies(heads, panel_nodes(X)).logsumexp(2)
    found = torch.stack(
        [
            model.node_energies(heads, shifted_nodes(X, generator(s))).logsumexp(2)
            for s in range(50)
        ]
    )
    assert float((found - exact).abs().max()) < 1e-2
    assert float((found.mean(0) - exact).abs().max()) < 2e-3


@pytest.mark.parametrize("row", range(3))
def test_distribution_mean_and_quantiles_against_dense_integration(row):
    model = energy()
    law, density = response_law(model, X[row : row + 1]), density_at(model, X[row])
    y = torch.tensor([-4.0, -0.7, 0.1, 2.5], dtype=torch.float64)
    found = law.distribution(y[None, None]).mean(0)[0, 0]
    expected = [integral(density, high=float(v)) for v in y]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    levels = torch.tensor([1e-3, 0.05, 0.5, 0.9, 0.999], dtype=torch.float64)
    at = law.quantiles(levels)
    assert (at.diff() > 0).all()
    assert_close(law.distribution(at).mean(0)[0, 0], levels, atol=1e-8, rtol=0)
    body = integral(lambda v: v * density(v), -1000.0, 1000.0)
    tails = law.mean()[0, 0] - body
    assert abs(float(tails)) < 0.02  # more than two moments, but hardly
    light = energy()
    light.log_freedom.fill_(4.0)
    law, density = response_law(light, X[row : row + 1]), density_at(light, X[row])
    assert float(law.mean()) == pytest.approx(
        integral(lambda v: v * density(v)), abs=1e-6
    )


def test_mode_is_the_highest_point():
    model = energy()
    law = response_law(model, X)
    dense = torch.linspace(-15, 15, 30_001, dtype=torch.float64)
    for row, mode in enumerate(law.mode()[:, 0]):
        rows = torch.cat([X[row].expand(len(dense), 2), dense[:, None]], 1)
        assert float(mode) == pytest.approx(
            float(dense[model(rows).argmin()]), abs=1e-3
        )


def test_draws_follow_the_distribution():
    law = response_law(energy(), X)
    draws = law.draw(20_000, generator=generator(3))
    assert draws.shape == (3, 20_000, 1)
    p = law.distribution(draws.transpose(1, 2)).mean(0)[:, 0]
    for levels in p:
        assert stats.kstest(levels.numpy(), "uniform").pvalue > 1e-3


def test_without_tilt_it_is_a_student_density():
    model = energy(n_members=1, n_tilts=0)
    heads = model.heads(X)
    nu = 2 + float(model.log_freedom.exp())
    scale = 1.5 * heads.log_scale[0, :, 0].exp()
    law = stats.t(nu, heads.location[0, :, 0], scale)
    y = np.array([0.3, -2.0, 50.0])
    rows = torch.cat([X, torch.from_numpy(y)[:, None]], 1)
    np.testing.assert_allclose(-model(rows), law.logpdf(y), rtol=1e-10)
    found = response_law(model, X)
    levels = torch.tensor([0.001, 0.3, 0.95], dtype=torch.float64)
    expected = np.stack([law.ppf(float(p)) for p in levels], 1)
    np.testing.assert_allclose(found.quantiles(levels)[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(found.mean()[:, 0], law.mean(), atol=1e-6)
    np.testing.assert_allclose(found.mode()[:, 0], law.mean(), atol=1e-3)
    np.testing.assert_allclose(
        found.distribution(torch.from_numpy(y)[:, None, None])[0, :, 0, 0],
        law.cdf(y),
        atol=1e-8,
    )


def test_heavy_draws_have_their_density():
    nodes = drawn_nodes(X, 20_000, 1, generator())
    assert stats.kstest(nodes.r[:, 0].numpy(), stats.t(2).cdf).pvalue > 1e-3
    log_q = -nodes.log_weight - math.log(20_000)
    np.testing.assert_allclose(log_q, stats.t(2).logpdf(nodes.r[:, 0]), atol=1e-9)
    u = torch.tensor([[0.1], [0.5], [0.99]], dtype=torch.float64)
    np.testing.assert_allclose(heavy_nodes(u).r, stats.t(2).ppf(u), atol=1e-9)


def test_two_targets_against_a_grid():
    model = energy(n_targets=2, n_members=2, steep=1.0)
    model.log_freedom.fill_(3.0)
    side = torch.linspace(-25, 25, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    cell = float(side[1] - side[0]) ** 2
    law = response_law(model, X[:1])
    rows = torch.cat([X[:1].expand(len(grid), 2), grid], 1)
    p = torch.cat([(-model(part)).exp() for part in rows.split(20_000)]) * cell
    assert float(p.sum()) == pytest.approx(1, abs=0.01)
    mean = (p[:, None] * grid).sum(0) / p.sum()
    assert_close(law.mean()[0], mean, atol=0.03, rtol=0)
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for j, share in enumerate((p.view(801, 801).sum(1), p.view(801, 801).sum(0))):
        expected = np.interp(levels, share.cumsum(0) / share.sum(), side)
        np.testing.assert_allclose(law.quantiles(levels)[0, j], expected, atol=0.06)
    draws = law.draw(4000, generator=generator())[0]
    assert_close(draws.mean(0), mean, atol=0.12, rtol=0)


def test_rows_need_a_column_of_x():
    with pytest.raises(ValueError, match="expected at least 3"):
        ResponseEnergy(n_targets=2).build(2)
