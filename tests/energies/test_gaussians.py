"""A mixture of Gaussians against scipy, its draws, and its conditional density."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal
from torch.testing import assert_close

from skebm.energies import Gaussians, Quadratic


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def parameters(k=3, d=4):
    root = randn(k, d, d)
    covariances = root @ root.mT + 0.3 * torch.eye(d, dtype=torch.float64)
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)[:k]
    return weights / weights.sum(), 2 * randn(k, d, seed=1), covariances


def mixture(k=3, d=4):
    return Gaussians().match(*parameters(k, d))


def scipy_energy(x, k=3, d=4):
    weights, means, covariances = parameters(k, d)
    density = sum(
        float(w) * multivariate_normal(m.numpy(), c.numpy()).pdf(x.numpy())
        for w, m, c in zip(weights, means, covariances, strict=True)
    )
    return -torch.as_tensor(density).log()


@pytest.mark.parametrize(("k", "d"), [(1, 4), (3, 4), (3, 1)])
def test_energy_is_minus_the_log_density(k, d):
    x = 3 * randn(50, d, seed=2)
    assert_close(
        mixture(k, d)(x), scipy_energy(x, k, d).reshape(50), rtol=1e-9, atol=1e-9
    )
    assert mixture(k, d).log_partition() == 0.0


def test_weights_are_normalised():
    weights, means, covariances = parameters()
    x = randn(5, 4)
    assert_close(Gaussians().match(7 * weights, means, covariances)(x), mixture()(x))


def test_builds_the_standard_normal():
    energy, x = Gaussians().build(3), randn(9, 3).float()
    expected = 0.5 * x.square().sum(1) + 1.5 * math.log(2 * math.pi)
    assert_close(energy(x), expected)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_log_partition_of_one_component_at_a_temperature(temperature):
    """log Z_T - log Z / T is that of the quadratic energy without its constant."""
    _, means, covariances = parameters(1)
    quadratic = Quadratic().match(means[0], covariances[0])
    shift = quadratic.log_partition() / temperature
    expected = quadratic.log_partition(temperature) - shift
    assert mixture(1).log_partition(temperature) == pytest.approx(expected, abs=1e-9)
    assert mixture(3).log_partition(temperature) is None


def test_draws_have_the_moments_and_the_weights():
    weights, means, covariances = parameters()
    x = mixture().sample(200_000, generator=generator())
    mean = weights @ means
    second = torch.einsum("k,kij->ij", weights, covariances)
    second += torch.einsum("k,ki,kj->ij", weights, means, means)
    covariance = second - torch.outer(mean, mean)
    error = 4 * covariance.diagonal().sqrt() / math.sqrt(len(x))
    assert ((x.mean(0) - mean).abs() < error).all()
    assert_close(x.T.cov(), covariance, rtol=0.05, atol=0.05)


def test_draws_come_in_pieces_of_any_size(monkeypatch):
    expected = mixture().sample(100, generator=generator())
    monkeypatch.setattr("skebm.energies.gaussians.GATHERED_VALUES", 50)
    assert_close(mixture().sample(100, generator=generator()), expected)


def test_condition_is_the_joint_density_over_the_marginal():
    """E(free | given) - E(all) is one number: minus the log marginal of the given."""
    energy, values = mixture(), [0.3, -0.2]
    given = energy.condition([3, 1], values)
    u = 2 * randn(20, 2, seed=4)
    x = torch.empty(20, 4, dtype=torch.float64)
    x[:, [0, 2]], x[:, 3], x[:, 1] = u, values[0], values[1]
    weights, means, covariances = parameters()
    marginal = Gaussians().match(
        weights, means[:, [3, 1]], covariances[:, [3, 1]][:, :, [3, 1]]
    )
    point = torch.tensor([values], dtype=torch.float64)
    assert_close(energy(x), given(u) + marginal(point), rtol=1e-10, atol=1e-10)


def test_condition_of_one_gaussian_has_the_textbook_moments():
    _, means, covariances = parameters(1)
    m, s = means[0], covariances[0]
    given = mixture(1).condition([1], [0.7])
    free = [0, 2, 3]
    gain = s[free, 1] / s[1, 1]
    assert_close(given.means[0], m[free] + gain * (0.7 - m[1]))
    expected = s[free][:, free] - torch.outer(gain, s[1, free])
    assert_close(given.factors[0] @ given.factors[0].T, expected)


def test_far_rows_stay_finite_in_single_precision():
    e = mixture().float()(torch.full((1, 4), 1e15))
    assert e.isfinite().all()
    assert e > 1e20
