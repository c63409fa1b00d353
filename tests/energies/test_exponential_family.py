"""Maximum entropy: moments matched on domains that can be listed or integrated."""

import itertools
import math
import pickle

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import ExponentialFamily


def powers(x):
    """x, x^2, x^3, x^4."""
    return torch.cat([x, x**2, x**3, x**4], 1)


def two_powers(x):
    return powers(x)[:, :2]


def units_and_pairs(x):
    """x_i and x_i x_j."""
    pairs = [x[:, i] * x[:, j] for i, j in itertools.combinations(range(x.shape[1]), 2)]
    return torch.cat([x, torch.stack(pairs, 1)], 1)


def line(half_width=12.0, n=4001):
    return torch.linspace(-half_width, half_width, n, dtype=torch.float64)[:, None]


def means(energy, nodes, statistics, weights=None):
    """Means of the statistics over nodes with mass proportional to w exp(-E)."""
    log_mass = -energy(nodes) + (0 if weights is None else weights.log())
    return log_mass.softmax(0) @ statistics(nodes)


def test_energy_is_minus_theta_times_the_statistics():
    energy = ExponentialFamily(two_powers, 2).build(1).double()
    x = line(2.0, 9)
    assert (energy(x) == 0).all()
    with torch.no_grad():
        energy.theta[:] = torch.tensor([2.0, -0.5])
    assert_close(energy(x), 0.5 * x[:, 0] ** 2 - 2 * x[:, 0])


def test_loaded_dice_of_jaynes():
    """Mean 4.5: probabilities .05435, .07877, .11416, .16545, .23977, .34749."""
    dice = torch.arange(1, 7, dtype=torch.float64)[:, None]
    energy = ExponentialFamily(torch.clone, 1).match(torch.tensor([4.5]).double(), dice)
    expected = torch.tensor([0.05435, 0.07877, 0.11416, 0.16545, 0.23977, 0.34749])
    assert_close((-energy(dice)).softmax(0), expected.double(), rtol=0, atol=6e-6)


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (1.5, 0.3), (-2.0, 2.5)])
def test_mean_and_variance_give_the_gaussian(mean, variance):
    moments = torch.tensor([mean, mean**2 + variance], dtype=torch.float64)
    energy = ExponentialFamily(two_powers, 2).match(moments, line())
    expected = torch.tensor([mean / variance, -0.5 / variance]).double()
    assert_close(energy.theta.data, expected, rtol=1e-6, atol=1e-6)


def test_four_moments_of_a_two_humped_density_are_matched():
    nodes = line(8.0)
    humps = torch.exp(-2 * (nodes - 1.5) ** 2) + 0.4 * torch.exp(-2 * (nodes + 1) ** 2)
    moments = (humps / humps.sum()).T[0] @ powers(nodes)
    energy = ExponentialFamily(powers, 4).match(moments, nodes)
    assert_close(means(energy, nodes, powers), moments, rtol=0, atol=1e-3)
    assert energy.theta[3] < 0


def test_pair_means_of_an_enumerable_model_are_matched_and_give_the_couplings():
    states = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=6))).double()
    g = torch.Generator().manual_seed(0)
    theta = 0.5 * torch.randn(21, generator=g, dtype=torch.float64)
    moments = (units_and_pairs(states) @ theta).softmax(0) @ units_and_pairs(states)
    energy = ExponentialFamily(units_and_pairs, 21).match(moments, states)
    assert_close(means(energy, states, units_and_pairs), moments, rtol=0, atol=1e-8)
    assert_close(energy.theta.data, theta, rtol=1e-6, atol=1e-6)


def test_weights_make_a_quadrature_rule_of_uneven_nodes():
    nodes = 8 * torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None] ** 3
    weights = torch.gradient(nodes[:, 0])[0].clamp(min=1e-12)
    moments = torch.tensor([0.5, 1.25], dtype=torch.float64)
    energy = ExponentialFamily(two_powers, 2).match(moments, nodes, weights)
    assert_close(
        energy.theta.data, torch.tensor([0.5, -0.5]).double(), atol=1e-3, rtol=0
    )
    assert_close(means(energy, nodes, two_powers, weights), moments, rtol=0, atol=1e-8)
    unweighted = ExponentialFamily(two_powers, 2).match(moments, nodes)
    assert (unweighted.theta - energy.theta).abs().max() > 0.1


def test_moments_are_the_gradient_of_log_z():
    nodes = line()
    energy = ExponentialFamily(two_powers, 2).build(1).double()
    with torch.no_grad():
        energy.theta[:] = torch.tensor([0.7, -0.4])
    log_z = (-energy(nodes)).logsumexp(0) + math.log(float(nodes[1] - nodes[0]))
    log_z.backward()
    expected = means(energy, nodes, two_powers)
    assert_close(energy.theta.grad, expected.detach(), rtol=1e-10, atol=1e-10)
    variance, mean = 1 / 0.8, 0.7 / 0.8
    exact = torch.tensor([mean, mean**2 + variance]).double()
    assert_close(expected.detach(), exact, rtol=1e-6, atol=1e-6)


def test_statistics_that_say_the_same_twice_still_match():
    nodes = line()
    twice = ExponentialFamily(lambda x: torch.cat([x, x**2, 2 * x], 1), 3)
    moments = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    energy = twice.match(moments, nodes)
    once = ExponentialFamily(two_powers, 2).match(moments[:2], nodes)
    gap = energy(nodes) - once(nodes)
    assert_close(gap, gap[:1].expand_as(gap), rtol=1e-6, atol=1e-6)


def test_statistics_on_unlike_scales_match():
    nodes = 1e4 * line(8.0)
    moments = torch.tensor([1e4, 2e8], dtype=torch.float64)
    energy = ExponentialFamily(two_powers, 2).match(moments, nodes)
    assert_close(
        energy.theta.data, torch.tensor([1e-4, -0.5e-8]).double(), rtol=1e-4, atol=0
    )


def test_dtype_follows_the_moments():
    energy = ExponentialFamily(two_powers, 2).match(torch.tensor([0.0, 1.0]), line())
    assert energy.theta.dtype == torch.float32
    assert energy(line(2.0, 9).float()).dtype == torch.float32


@pytest.mark.parametrize("moments", [[0.0, -1.0], [2.0, 1.0], [20.0, 500.0]])
def test_moments_that_no_density_has_are_refused(moments):
    with pytest.raises(ValueError, match="inside the convex hull"):
        ExponentialFamily(two_powers, 2).match(torch.tensor(moments), line())


@pytest.mark.parametrize(
    "wrong", [lambda x: x[:, 0], lambda x: x.sum(0), lambda x: x[:1], torch.sum]
)
def test_statistics_of_another_shape_are_refused(wrong):
    energy = ExponentialFamily(wrong, 2).build(2)
    with pytest.raises(ValueError, match=r"for 5 rows, but expected \(5, 2\)"):
        energy(torch.ones(5, 2))


def test_functions_of_a_module_pickle():
    energy = ExponentialFamily(two_powers, 2).match(torch.tensor([0.0, 1.0]), line())
    x = line(2.0, 9).float()
    assert torch.equal(pickle.loads(pickle.dumps(energy))(x), energy(x))
