"""The Gaussian energy against what is known of Gaussians."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch.testing import assert_close

from skebm.energies import Quadratic, Scaled, Sum

MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.5, 0.6], [0.6, 0.8]], dtype=torch.float64)


def gaussian(mean=MEAN, covariance=COVARIANCE):
    return Quadratic().match(mean, covariance)


def rows(n=50, d=2):
    g = torch.Generator().manual_seed(3)
    return 2 * torch.randn(n, d, generator=g, dtype=torch.float64)


def quadrature(energy, temperature=1.0, half_width=16.0, n=401):
    line = torch.linspace(-half_width, half_width, n, dtype=torch.float64)
    with torch.no_grad():
        e = energy(torch.cartesian_prod(line, line)) / temperature
    return float((-e).logsumexp(0)) + 2 * math.log(float(line[1] - line[0]))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_density_is_that_of_the_normal_distribution(d):
    root = rows(d, d) + torch.eye(d, dtype=torch.float64)
    mean, covariance = rows(1, d)[0], root @ root.T + 0.1 * torch.eye(d)
    energy = gaussian(mean, covariance)
    log_density = -energy(rows(50, d)) - energy.log_partition()
    expected = multivariate_normal(mean, covariance).logpdf(rows(50, d).numpy())
    np.testing.assert_allclose(log_density.detach(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_log_partition_equals_quadrature(temperature):
    energy = gaussian()
    expected = quadrature(energy, temperature)
    assert energy.log_partition(temperature) == pytest.approx(expected, abs=1e-6)


def test_log_partition_is_exact_for_every_parameter_value():
    energy = Quadratic().build(2).double()
    torch.nn.init.constant_(energy.log_diagonal, 0.3)
    torch.nn.init.constant_(energy.lower, -0.7)
    torch.nn.init.constant_(energy.mean, 1.0)
    assert energy.log_partition() == pytest.approx(quadrature(energy), abs=1e-6)


def test_build_starts_at_the_standard_normal():
    x = rows().float()
    energy = Quadratic().build(2)
    assert_close(energy(x), 0.5 * x.square().sum(1))
    assert energy.log_partition() == pytest.approx(math.log(2 * math.pi))


def test_entries_above_the_diagonal_are_ignored():
    energy, x = gaussian(), rows()
    before = energy(x)
    with torch.no_grad():
        energy.lower += 9.0 * torch.ones(2, 2, dtype=torch.float64).triu()
    assert torch.equal(energy(x), before)


def test_samples_have_the_moments():
    x = gaussian().sample(200_000, generator=torch.Generator().manual_seed(0))
    assert x.shape == (200_000, 2)
    assert x.dtype == torch.float64
    assert not x.requires_grad
    assert_close(x.mean(0), MEAN, rtol=0, atol=0.015)
    assert_close(x.T.cov(), COVARIANCE, rtol=0, atol=0.03)


def test_product_of_gaussians_is_a_gaussian():
    other_mean = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    other = torch.tensor([[0.7, -0.3], [-0.3, 2.0]], dtype=torch.float64)
    product = Sum(gaussian(), gaussian(other_mean, other))
    p, q = COVARIANCE.inverse(), other.inverse()
    hessian = torch.autograd.functional.hessian(
        lambda x: product(x[None]).sum(), torch.zeros(2, dtype=torch.float64)
    )
    assert_close(hessian, p + q, rtol=0, atol=1e-6)
    mean = torch.linalg.solve(p + q, p @ MEAN + q @ other_mean)
    assert_close(product.grad(mean[None])[0], 0 * mean, rtol=0, atol=1e-9)
    combined = gaussian(mean, (p + q).inverse())
    gap = product(rows()) - combined(rows())
    assert_close(gap, gap[0].expand_as(gap), rtol=1e-9, atol=1e-9)


def test_half_the_energy_doubles_the_covariance():
    hot, wide = Scaled(gaussian(), 0.5), gaussian(covariance=2 * COVARIANCE)
    assert_close(hot(rows()), wide(rows()), rtol=1e-12, atol=1e-12)
    assert hot.log_partition() == pytest.approx(wide.log_partition(), abs=1e-12)
    assert hot.log_partition(3.0) == pytest.approx(wide.log_partition(3.0), abs=1e-12)
    assert hot.log_partition() == pytest.approx(quadrature(hot), abs=1e-6)


def test_unit_factor_is_the_identity():
    once = Scaled(gaussian(), 1.0)
    assert torch.equal(once(rows()), gaussian()(rows()))
    assert once.log_partition(1.7) == gaussian().log_partition(1.7)


def test_density_ratio_needs_no_partition_function():
    x, y = rows(), rows().flip(0)
    energy, law = gaussian(), multivariate_normal(MEAN, COVARIANCE)
    ratio = (energy(y) - energy(x)).exp().detach().numpy()
    expected = np.exp(law.logpdf(x.numpy()) - law.logpdf(y.numpy()))
    np.testing.assert_allclose(ratio, expected, rtol=1e-9)


def test_match_copies_its_arguments():
    mean = MEAN.clone()
    energy = gaussian(mean)
    with torch.no_grad():
        energy.mean += 1.0
    assert torch.equal(mean, MEAN)


def test_match_refuses_an_indefinite_covariance():
    with pytest.raises(torch.linalg.LinAlgError):
        gaussian(covariance=torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double())


def test_maximum_likelihood_by_gradient_finds_the_moments():
    x = rows(500) @ torch.tensor([[1.0, 0.4], [0.0, 0.6]]).double() + MEAN
    energy = Quadratic().build(2).double()
    optimizer = torch.optim.LBFGS(
        energy.parameters(), max_iter=200, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        value = energy(x).mean() - energy.log_diagonal.sum()
        value.backward()
        return value

    optimizer.step(loss)
    matched = gaussian(x.mean(0), x.T.cov(correction=0))
    assert_close(energy(x), matched(x), rtol=1e-4, atol=1e-4)
